/**
 * Runs a program of an unpacked image as a container runtime would: as the image's user, with its environment, on a
 * read-only root with only /tmp writable. Needs root and a mount namespace.
 */
import { execa } from "execa";
import type { UnpackedImage } from "../../hack/images/unpack.ts";

export interface RunOptions {
  /** In place of the image's entry point. */
  readonly command?: readonly string[];
  readonly args?: readonly string[];
  /** Devices of this machine, as a volume mounts them. */
  readonly devices?: boolean;
  readonly timeoutMs?: number;
}

/** $1 root, $2 with devices or not, $3 user; then the command. */
const ENTER = `
set -e
root=$1 devices=$2 user=$3
shift 3
mount --bind "$root" "$root"
if [ "$devices" = yes ]; then
  mkdir -p "$root/dev" "$root/proc" "$root/sys"
  mount --rbind /dev "$root/dev"
  mount --rbind /sys "$root/sys"
  mount -t proc proc "$root/proc"
fi
mkdir -p "$root/tmp"
mount -t tmpfs tmpfs "$root/tmp"
mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" "$root" "$@"
`;

export function runInImage(image: UnpackedImage, options: RunOptions) {
  const { config } = image.config;
  const { command = config.Entrypoint ?? [], args = [], devices = false } = options;
  const env = Object.fromEntries(
    (config.Env ?? []).map((entry): [string, string] => {
      const at = entry.indexOf("=");
      return [entry.slice(0, at), entry.slice(at + 1)];
    }),
  );
  return execa(
    "unshare",
    [
      "--mount",
      "--propagation=private",
      "sh",
      "-c",
      ENTER,
      "sh",
      image.rootfs,
      devices ? "yes" : "no",
      config.User ?? "0:0",
      ...command,
      ...args,
    ],
    {
      env,
      extendEnv: false,
      reject: false,
      all: true,
      timeout: options.timeoutMs ?? 60_000,
    },
  );
}
