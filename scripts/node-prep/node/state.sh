# Node side of node-prep: what a journalled file is now. POSIX sh; reads only.
# Why a file of its own: the probe, the changes and undo must agree on what somebody else changed.

digest() { sha256sum <"$1" | cut -d ' ' -f 1; }

# resolve PATH: the file itself where PATH is a link, so that a change never takes the link's place
resolve() { readlink -f -- "$1" 2>/dev/null || printf '%s\n' "$1"; }

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
