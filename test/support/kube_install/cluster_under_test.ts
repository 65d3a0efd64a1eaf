/** What the suite needs of a cluster, so that the same steps run on nodes in namespaces and on kind. */
export interface ClusterNode {
  readonly name: string;
  readonly address: string;
  /** Runs a program on the node as root; its standard output. */
  exec(argv: readonly string[]): Promise<string>;
  /** Node loss: everything on it ends at once. */
  stop(): Promise<void>;
  start(): Promise<void>;
}

export interface ControlPlaneUnderTest {
  readonly kubeconfig: string;
  kubectl(args: readonly string[], options?: { readonly input?: string }): Promise<string>;
}

export interface ClusterUnderTest {
  readonly controlPlane: ControlPlaneUnderTest;
  readonly nodes: readonly ClusterNode[];
  node(name: string): ClusterNode;
}
