# Node side of node-prep --undo: takes back every journalled change, newest first. POSIX sh; as root.
# Why three passes: a command that rebuilds the boot configuration must see the files already restored.
# Invariants: every pass can be repeated, so an interrupted undo is finished by the next one; an entry goes
# only after what it describes is restored; what somebody changed after us is left alone and reported.

left=0
leave() {
  left=$((left + 1))
  say "left $*"
}

newest_first() {
  for entry in "$JOURNAL"/*; do
    if [ -f "$entry/seq" ]; then printf '%s %s\n' "$(cat "$entry/seq")" "${entry##*/}"; fi
  done | sort -rn | cut -d ' ' -f 2
}

forget() {
  mv "$JOURNAL/$1" "$JOURNAL/$1.undone" && rm -rf "$JOURNAL/$1.undone"
  say "undone $1"
}

undo_file() {
  rm -f "$(resolve "$(cat "$JOURNAL/$1/path")").mayastor-new"
  if [ "$(file_is "$JOURNAL/$1")" = other ]; then
    leave "$1 $(cat "$JOURNAL/$1/path") was changed since: compare it with $JOURNAL/$1/before, then remove $JOURNAL/$1"
    return 0
  fi
  restore_file "$JOURNAL/$1"
  flush
  forget "$1"
}

# A file that others wrote to as well loses our line and nothing else.
undo_line() {
  path=$(resolve "$(cat "$JOURNAL/$1/path")")
  rm -f "$path.mayastor-new"
  if [ ! -e "$JOURNAL/$1/foreign" ] && [ "$(file_is "$JOURNAL/$1")" != other ]; then
    restore_file "$JOURNAL/$1"
  elif [ -e "$path" ] && grep -qxF -e "$(cat "$JOURNAL/$1/line")" "$path"; then
    # grep's 1 is a file that had no other line.
    cp -p "$path" "$path.mayastor-new" &&
      { grep -vxF -e "$(cat "$JOURNAL/$1/line")" "$path" >"$path.mayastor-new" || [ $? = 1 ]; } && flush &&
      mv -f "$path.mayastor-new" "$path" || fail "undo cannot take our line out of $path"
  fi
  flush
  forget "$1"
}

undo_live() {
  path=$(cat "$JOURNAL/$1/path")
  # A write that was cut off has no record of what the kernel made of it.
  if [ ! -e "$JOURNAL/$1/done" ] || grep -qxF -e "$(cat "$path" 2>/dev/null)" "$JOURNAL/$1/after" 2>/dev/null; then
    cat "$JOURNAL/$1/before" >"$path" || fail "$1 cannot write $path"
  fi
  forget "$1"
}

# The earlier bytes of what a command wrote are right as long as the kernels are the same and nobody else wrote
# there since. A step that was cut off has no record of what it wrote: those bytes could be anybody's too.
restorable() {
  [ "$(kernels)" = "$(cat "$JOURNAL/$1/kernels")" ] && [ ! -e "$JOURNAL/$1/foreign" ] || return 1
  for saved in "$JOURNAL/$1"/files/*; do
    [ -f "$saved/path" ] || continue
    if [ "$(file_is "$saved")" = other ]; then return 1; fi
  done
}

undo_run_files() {
  if [ -e "$JOURNAL/$1/restored" ]; then return 0; fi
  heal "$1"
  if ! restorable "$1"; then return 0; fi
  for saved in "$JOURNAL/$1"/files/*; do
    if [ -f "$saved/path" ]; then restore_file "$saved"; fi
  done
  keep "$JOURNAL/$1/restored" yes
  flush
}

# The commands may print on descriptor 3 why they kept what they should have taken back.
undo_run() {
  if [ -e "$JOURNAL/$1/restored" ]; then what=refresh; else what=revert; fi
  command=$(cat "$JOURNAL/$1/$what")
  if [ "$what" = revert ] && [ -e "$JOURNAL/$1/done" ]; then
    rm -f "$JOURNAL/$1/done"
    flush
  fi
  if ! kept=$(sh -c "$command" 3>&1 9>&- >&2 </dev/null); then
    leave "$1 the command failed: $command"
    return 0
  fi
  if [ "$what" = revert ]; then
    # The command made the earlier bytes again: their date and owner are the earlier ones too.
    for saved in "$JOURNAL/$1"/files/*; do
      [ -f "$saved/before" ] && [ "$(file_is "$saved")" = before ] || continue
      path=$(resolve "$(cat "$saved/path")")
      put_back "$saved" "$path" || fail "undo cannot restore $path"
    done
    flush
  fi
  if [ -n "$kept" ]; then say "kept $1 $kept"; fi
  forget "$1"
}

undo_dir() {
  path=$(cat "$JOURNAL/$1/path")
  if [ -d "$path" ] && ! rmdir "$path" 2>/dev/null; then
    say "kept $1 $path is not empty"
  fi
  forget "$1"
}

undo_all() {
  if [ ! -d "$JOURNAL" ]; then
    rm -rf /var/lib/.mayastor-node-prep.new
    say "nothing to undo"
    return 0
  fi
  rm -rf "$JOURNAL"/*.new "$JOURNAL"/*.undone /var/lib/.mayastor-node-prep.new
  for entry in $(newest_first); do
    case $(cat "$JOURNAL/$entry/kind") in
      file) undo_file "$entry" ;;
      line) undo_line "$entry" ;;
      live) undo_live "$entry" ;;
      run) undo_run_files "$entry" ;;
      note) [ -n "$KEEP_NOTES" ] || forget "$entry" ;;
    esac
  done
  for entry in $(newest_first); do
    if [ "$(cat "$JOURNAL/$entry/kind")" = run ]; then undo_run "$entry"; fi
  done
  for entry in $(newest_first); do
    if [ "$(cat "$JOURNAL/$entry/kind")" = dir ]; then undo_dir "$entry"; fi
  done
  [ "$left" -eq 0 ] || fail "undo $left changes were left alone; the lines above say why"
  # What a note is about is taken back elsewhere, and only then is there nothing left to know.
  if [ -n "$KEEP_NOTES" ]; then return 0; fi
  # The parent goes with the journal in one rename, so that the note who made it cannot be lost alone.
  if [ -e "$JOURNAL/owns-parent" ] && [ "$(ls -A /var/lib/mayastor)" = node-prep ]; then
    mv /var/lib/mayastor /var/lib/.mayastor-node-prep.new && rm -rf /var/lib/.mayastor-node-prep.new
  else
    rm -rf "$JOURNAL"
  fi
  say "undone all"
}
