/** Which base images the Dockerfile names; whoever builds makes or pins them. */

/** The base images named by the Dockerfile. */
export function baseReferences(dockerfile: string): {
  readonly debian: string;
  readonly node: string;
} {
  const reference = (name: string): string => {
    const found = new RegExp(`^ARG ${name}=(\\S+)$`, "m").exec(dockerfile)?.[1];
    if (found === undefined) throw new Error(`Cannot build: the Dockerfile has no ARG ${name}`);
    return found;
  };
  return { debian: reference("BASE"), node: reference("NODE_BASE") };
}
