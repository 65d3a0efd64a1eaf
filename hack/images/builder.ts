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
  build(request: BuildRequest): Promise<void>;
}
