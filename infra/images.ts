/**
 * Where the images of this project are, and what they are called: for the manifests, for the builds in hack/images and
 * for the release workflow alike.
 *
 * Why one place: a manifest that names an image which nobody built, or which another project built under that name,
 * installs something else than was meant.
 * Invariant: no manifest ever names an image of the original Mayastor: its programs take other arguments.
 */

/** A registry, which may be empty, and the repository in it, which may have several parts. */
export type ImagePlace = { readonly registry: string; readonly repo: string };

/**
 * Until a registry is given: a name that no registry serves, so that a node uses what was loaded into it and nothing
 * else. `hack/images` builds under these names.
 */
export const LOCAL_PLACE: ImagePlace = { registry: "localhost", repo: "mayastor" };

/** Where the original Mayastor's images are; a published values file says so. */
export const ORIGINAL_PLACE: ImagePlace = { registry: "docker.io", repo: "openebs" };
/** Names of the registry that is meant when none is given. */
const DEFAULT_REGISTRIES = ["", "docker.io", "index.docker.io", "registry-1.docker.io"];

export function isOriginalPlace({ registry, repo }: ImagePlace): boolean {
  const owner = repo.toLowerCase().replaceAll(/^\/+|\/+$/g, "");
  return DEFAULT_REGISTRIES.includes(registry.toLowerCase()) && owner === ORIGINAL_PLACE.repo;
}

/** The name of a program's image without its tag; registries know no capitals. */
export function imageName({ registry, repo }: ImagePlace, program: string): string {
  return [registry, repo, `mayastor-${program}`]
    .filter((part) => part !== "")
    .join("/")
    .toLowerCase();
}
