#!/bin/sh
# Makes a root directory with the given files and everything their loader asks for, at the same paths.
# Usage: collect.sh ROOT FILE...   (a name without a slash is looked for on the PATH)
# Why: an image needs neither a shell nor a package manager to run one program. What it does have is listed in
# var/lib/dpkg/status.d, where scanners look for the packages of such images.
set -eu
root=$1
shift
mkdir -p "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib" "$root/usr/lib64" "$root/var/lib/dpkg/status.d"
for name in bin sbin lib lib64; do ln -sfn "usr/$name" "$root/$name"; done

add() {
  mkdir -p "$root$(dirname "$1")"
  cp -L --preserve=mode,timestamps "$1" "$root$1"
  chmod u-s,g-s "$root$1"
  # Packages name files with or without /usr; files of no package (the pinned Node) are listed nowhere.
  for known in "$1" "/usr$1" "${1#/usr}" "$(readlink -f "$1")"; do
    package=$(dpkg-query --search "$known" 2>/dev/null | head -n 1 | cut -d : -f 1) || true
    if [ -n "$package" ]; then
      dpkg-query --status "$package" >"$root/var/lib/dpkg/status.d/$package"
      if [ -e "/usr/share/doc/$package/copyright" ]; then
        mkdir -p "$root/usr/share/doc/$package"
        cp -L "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
      fi
      return
    fi
  done
}

for file in "$@"; do
  case $file in
    */*) ;;
    *)
      found=$(command -v "$file") || { echo "collect: no program $file" >&2; exit 1; }
      file=$found
      ;;
  esac
  add "$file"
  libraries=$(ldd "$file" 2>/dev/null || true)
  case $libraries in
    *"not found"*)
      echo "collect: $file needs what is not here: $libraries" >&2
      exit 1
      ;;
  esac
  for library in $(printf '%s\n' "$libraries" | grep -o '/[^ ]* (0x' | cut -d ' ' -f 1); do
    [ -e "$root$library" ] || add "$library"
  done
done
