# Node side of node-prep: what a journalled file is now. POSIX sh; reads only.
# Why a file of its own: the probe, the changes and undo must agree on what somebody else changed.

digest() { sha256sum <"$1" | cut -d ' ' -f 1; }

# resolve PATH: the file itself where PATH is a link, so that a change never takes the link's place
resolve() { readlink -f -- "$1" 2>/dev/null || printf '%s\n' "$1"; }

# torn SAVED: the file is what a write that was cut off left of it: nothing, or only its first lines as they were or
# with more at their ends (what others change otherwise is theirs), the last one perhaps in part
torn() {
  path=$(cat "$1/path")
  [ -s "$1/before" ] && [ -f "$path" ] || return 1
  [ -s "$path" ] || return 0
  if [ -z "$(tail -c 1 "$path")" ] || [ -n "$(tail -c 1 "$1/before")" ]; then whole=1; else whole=0; fi
  # Not index(): awks differ on whether a line begins with an empty one.
  awk -v whole="$whole" '
    function begins(line, with) { return substr(line, 1, length(with)) == with }
    NR == FNR { before[FNR] = $0; lines = FNR; next }
    FNR > lines { more = 1; exit }
    FNR > 1 && !begins(last, before[FNR - 1]) { more = 1; exit }
    { last = $0; at = FNR }
    END {
      if (more) exit 1
      if (begins(last, before[at])) exit whole && at == lines
      exit whole || !begins(before[at], last)
    }' "$1/before" "$path"
}

# file_is SAVED: before | ours | other
file_is() {
  path=$(cat "$1/path")
  if [ -e "$path" ]; then now=$(digest "$path"); else now=absent; fi
  if [ -e "$1/absent" ]; then earlier=absent; else earlier=$(digest "$1/before"); fi
  if [ "$now" = "$earlier" ]; then
    echo before
  elif [ -f "$1/after" ] && grep -qxF -e "$now" "$1/after"; then
    echo ours
  else
    echo other
  fi
}
