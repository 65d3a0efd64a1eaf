# Node side of node-prep: changes with a journal, so that every one can be taken back. POSIX sh; as root.
# Why a journal of earlier bytes: undo restores what was there, not what we think was there.
# Layout of $JOURNAL (mode 0700): NAME/{kind,seq,path,before|absent,after,...}, one directory per changed thing.
#   file  path, before (the earlier file) or absent, after (sha256 of each version we wrote)
#   line  as file, and the line that was added; foreign once others wrote there too
#   dir   path (a directory we made)
#   live  path, before, after: a kernel setting
#   run   a command: revert, refresh, kernels, files/N/{path,before|absent,after}; foreign once others wrote there too
#   note  something done elsewhere (the node's label)
# Invariants:
# - An entry is complete on disk (made as NAME.new, renamed) before the thing it describes changes.
# - The first `before` is kept: repeated runs never journal our own bytes as somebody else's. Nor the other way
#   round: a file that somebody changed after us isn't written again as a whole (file), or is marked foreign before
#   a command or a line changes it once more, and is then never put back as a whole.
# - `path` is the file itself, also where a link led to it.
# - `done` marks an entry whose change is complete; one without it is repaired by the next run.
# - Files change by rename once the new bytes are on disk, so a reader and a crash see the earlier or the later bytes,
#   nothing between. What a command of the system wrote in place when it was cut off is put back before it runs again.
# - A file somebody changed after us is left alone, and said so.

say() { printf 'node-prep: %s\n' "$*"; }
fail() {
  printf 'node-prep: failed %s\n' "$*"
  exit 1
}

# keep FILE TEXT: into an entry that isn't renamed to its name yet, or a mark whose presence is all
keep() { printf '%s\n' "$2" >"$1"; }

# flush: what was written is on disk before anything leans on it
flush() { sync; }

lock() {
  mkdir -p /run/lock
  exec 9>/run/lock/mayastor-node-prep.lock
  flock -n 9 || fail "lock another run of node-prep is working on this node: wait for it, then run again"
}

journal_init() {
  umask 022
  rm -rf /var/lib/.mayastor-node-prep.new
  if [ ! -d "$JOURNAL" ]; then
    if [ -d /var/lib/mayastor ]; then
      mkdir -m 700 "$JOURNAL" || fail "journal cannot make $JOURNAL"
    else
      # Made whole, then renamed: whoever finds it knows that undo may remove the parent too.
      mkdir -p /var/lib/.mayastor-node-prep.new/node-prep &&
        chmod 700 /var/lib/.mayastor-node-prep.new/node-prep &&
        keep /var/lib/.mayastor-node-prep.new/node-prep/owns-parent yes &&
        mv /var/lib/.mayastor-node-prep.new /var/lib/mayastor || fail "journal cannot make $JOURNAL"
    fi
  fi
  rm -rf "$JOURNAL"/*.new "$JOURNAL"/*.undone
}

entry_begin() {
  rm -rf "$JOURNAL/$1.new"
  last=$(cat "$JOURNAL"/*/seq 2>/dev/null | sort -n | tail -n 1)
  mkdir "$JOURNAL/$1.new" && keep "$JOURNAL/$1.new/kind" "$2" &&
    keep "$JOURNAL/$1.new/seq" $((${last:-0} + 1)) || fail "$1 cannot write the journal"
}

entry_commit() {
  flush
  mv "$JOURNAL/$1.new" "$JOURNAL/$1" || fail "$1 cannot write the journal"
  flush
}

entry_done() { keep "$JOURNAL/$1/done" yes; }

# add_after ENTRY-DIR VALUE: one more version that counts as ours
add_after() {
  if [ -f "$1/after" ] && grep -qxF -e "$2" "$1/after"; then return 0; fi
  { if [ -f "$1/after" ]; then cat "$1/after"; fi; printf '%s\n' "$2"; } >"$1/after.tmp" &&
    flush && mv -f "$1/after.tmp" "$1/after"
}

ensure_dir() {
  [ ! -d "$1" ] || return 0
  ensure_dir "$(dirname "$1")"
  dir_entry=05-dir$(printf %s "$1" | tr / _)
  if [ ! -d "$JOURNAL/$dir_entry" ]; then
    entry_begin "$dir_entry" dir
    keep "$JOURNAL/$dir_entry.new/path" "$1"
    entry_commit "$dir_entry"
  fi
  mkdir "$1" || fail "$dir_entry cannot make $1"
  entry_done "$dir_entry"
}

# save_file DIR PATH: the earlier state of PATH into DIR
save_file() {
  keep "$1/path" "$2"
  if [ -e "$2" ]; then cp -p "$2" "$1/before"; else keep "$1/absent" yes; fi
}

# put_back SAVED PATH: the earlier bytes, mode, owner and date
put_back() {
  cp -p "$1/before" "$2.mayastor-new" && flush && mv -f "$2.mayastor-new" "$2"
}

restore_file() {
  path=$(resolve "$(cat "$1/path")")
  rm -f "$path.mayastor-new"
  if [ -e "$1/absent" ]; then
    rm -f "$path"
  elif [ "$(file_is "$1")" != before ]; then
    put_back "$1" "$path"
  fi || fail "journal cannot restore $path"
}

# heal ENTRY: what its command left half written when it was cut off
heal() {
  [ ! -e "$JOURNAL/$1/done" ] || return 0
  for saved in "$JOURNAL/$1"/files/*; do
    if [ -f "$saved/path" ] && torn "$saved"; then restore_file "$saved"; fi
  done
}

# write_next ENTRY PATH MODE: ENTRY/next becomes PATH
write_next() {
  add_after "$1" "$(digest "$1/next")" || fail "${1##*/} cannot write the journal"
  flush
  # Beside the target, so that the rename is atomic; the ending keeps drop-in readers away from it.
  if [ -e "$2" ]; then cp -p "$2" "$2.mayastor-new"; fi
  cat "$1/next" >"$2.mayastor-new" && { [ -e "$2" ] || chmod "$3" "$2.mayastor-new"; } && flush &&
    mv -f "$2.mayastor-new" "$2" || fail "${1##*/} cannot write $2"
  rm -f "$1/next"
  flush
}

# put_file NAME PATH MODE BASE64
put_file() {
  target=$(resolve "$2")
  if [ -f "$target" ] && [ "$(base64 "$target" | tr -d '\n')" = "$4" ] && [ -e "$JOURNAL/$1/done" ]; then
    say "unchanged $1"
    return 0
  fi
  if [ ! -d "$JOURNAL/$1" ]; then
    entry_begin "$1" file
    save_file "$JOURNAL/$1.new" "$target" || fail "$1 cannot save $2"
    entry_commit "$1"
  elif [ "$(file_is "$JOURNAL/$1")" = other ]; then
    fail "$1 $target was changed since: move the change to a file of its own, then put back $JOURNAL/$1/before (or remove the file where there is none)"
  fi
  ensure_dir "$(dirname "$target")"
  printf %s "$4" | base64 -d >"$JOURNAL/$1/next" || fail "$1 cannot write $2"
  write_next "$JOURNAL/$1" "$target" "$3"
  entry_done "$1"
  say "changed $1"
}

# put_line NAME PATH LINE CHECK: LINE at the end of the file PATH, others' lines as they are now. CHECK FILE says
# whether a file can be loaded; where it refuses the file already without the line, it cannot tell.
put_line() {
  target=$(resolve "$2")
  if grep -qxF -e "$3" "$target" && [ -e "$JOURNAL/$1/done" ]; then
    say "unchanged $1"
    return 0
  fi
  if [ ! -d "$JOURNAL/$1" ]; then
    entry_begin "$1" line
    keep "$JOURNAL/$1.new/line" "$3"
    save_file "$JOURNAL/$1.new" "$target" || fail "$1 cannot save $2"
    entry_commit "$1"
  elif [ "$(file_is "$JOURNAL/$1")" = other ]; then
    keep "$JOURNAL/$1/foreign" yes
    flush
  fi
  if ! grep -qxF -e "$3" "$target"; then
    { cat "$target" && if [ -n "$(tail -c 1 "$target")" ]; then echo; fi && printf '%s\n' "$3"; } \
      >"$JOURNAL/$1/next" || fail "$1 cannot write $2"
    if sh -c "$4" check "$target" >/dev/null 2>&1 </dev/null &&
      ! sh -c "$4" check "$JOURNAL/$1/next" 9>&- >&2 </dev/null; then
      fail "$1 $target could not be loaded with the line added, so it was left as it was: $3"
    fi
    write_next "$JOURNAL/$1" "$target" 644
  fi
  entry_done "$1"
  say "changed $1"
}

# set_live NAME PATH VALUE
set_live() {
  if [ "$(cat "$2")" = "$3" ] && { [ ! -d "$JOURNAL/$1" ] || [ -e "$JOURNAL/$1/done" ]; }; then
    say "unchanged $1"
    return 0
  fi
  if [ ! -d "$JOURNAL/$1" ]; then
    entry_begin "$1" live
    keep "$JOURNAL/$1.new/path" "$2"
    keep "$JOURNAL/$1.new/before" "$(cat "$2")"
    entry_commit "$1"
  elif [ -e "$JOURNAL/$1/done" ] && ! grep -qxF -e "$(cat "$2")" "$JOURNAL/$1/after" "$JOURNAL/$1/before"; then
    # Somebody set it after us: that is what undo has to give back. (A write that was cut off has no record of
    # what the kernel made of it, so only a finished one can tell.)
    keep "$JOURNAL/$1/before.tmp" "$(cat "$2")" && flush &&
      mv -f "$JOURNAL/$1/before.tmp" "$JOURNAL/$1/before" || fail "$1 cannot write the journal"
    flush
  fi
  rm -f "$JOURNAL/$1/done"
  add_after "$JOURNAL/$1" "$3"
  printf '%s\n' "$3" >"$2" || fail "$1 cannot write $2"
  # The kernel may give less than asked; what it gave is ours too.
  add_after "$JOURNAL/$1" "$(cat "$2")"
  entry_done "$1"
  say "changed $1"
}

kernels() { for file in /boot/vmlinuz*; do printf '%s ' "${file##*/}"; done; }

# run_step NAME COMMAND REVERT REFRESH [PATH-OR-PATTERN...]: COMMAND changes the files given
run_step() {
  name=$1 command=$2 revert=$3 refresh=$4
  shift 4
  if [ ! -d "$JOURNAL/$name" ]; then
    entry_begin "$name" run
    keep "$JOURNAL/$name.new/revert" "$revert"
    keep "$JOURNAL/$name.new/refresh" "$refresh"
    keep "$JOURNAL/$name.new/kernels" "$(kernels)"
    mkdir "$JOURNAL/$name.new/files"
    number=0
    # Unquoted on purpose: a pattern becomes the files it matches now; our paths have no blanks.
    for path in $*; do
      case $path in *\**) continue ;; esac
      path=$(resolve "$path")
      number=$((number + 1))
      mkdir "$JOURNAL/$name.new/files/$number" &&
        save_file "$JOURNAL/$name.new/files/$number" "$path" || fail "$name cannot save $path"
    done
    entry_commit "$name"
  else
    heal "$name"
    for saved in "$JOURNAL/$name"/files/*; do
      if [ -f "$saved/path" ] && [ "$(file_is "$saved")" = other ]; then keep "$JOURNAL/$name/foreign" yes; fi
    done
    rm -f "$JOURNAL/$name/done" "$JOURNAL/$name/restored"
    flush
  fi
  sh -c "$command" 9>&- >&2 </dev/null || fail "$name the command failed: $command"
  for saved in "$JOURNAL/$name"/files/*; do
    [ -f "$saved/path" ] || continue
    path=$(cat "$saved/path")
    if [ -e "$path" ]; then add_after "$saved" "$(digest "$path")"; else add_after "$saved" absent; fi
  done
  flush
  entry_done "$name"
  say "changed $name"
}

# install NAME COMMAND: packages, which undo leaves; what cannot be installed doesn't keep the rest from being done
install() {
  if sh -c "$2" 9>&- >&2 </dev/null; then say "changed $1"; else say "left $1 the command failed: $2"; fi
}

# note NAME KEY VALUE: something done elsewhere that undo has to know of
note() {
  if [ -e "$JOURNAL/$1/done" ]; then
    say "unchanged $1"
    return 0
  fi
  if [ ! -d "$JOURNAL/$1" ]; then
    entry_begin "$1" note
    keep "$JOURNAL/$1.new/$2" "$3"
    entry_commit "$1"
  fi
  entry_done "$1"
  say "changed $1"
}
