/** What builds images of the Dockerfile. */
export interface WantedImage {
  /** Also its target in the Dockerfile. */
  readonly name: string;
  readonly reference: string;
}

export interface BuildRequest {
  readonly images: readonly WantedImage[];
  /** Id and file of each build secret. */
  readonly secrets: ReadonlyMap<string, string>;
  /** The docker-archive to write; it holds all images, and layers they share once. */
  readonly archive: string;
}

export interface Builder {
  /**
   * What the base images are at present, as parts of a hash; they are there to be built from afterwards.
   * Why asked first: the same inputs on other bases are another result.
   */
  bases(): Promise<readonly string[]>;
  /** Builds on the bases that were asked for last. */
  build(request: BuildRequest): Promise<void>;
}
