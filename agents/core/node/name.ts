/**
 * A node's name belongs to the first engine that came with it, for as long as that one answers.
 *
 * Why: a machine that is installed anew under its old name, or a copied manifest, makes two engines of one name. If each
 * registration were believed, the node would be now the one and now the other, and targets would be made again all the
 * time.
 * Invariants: the holder is asked at its own address before another gets the name; one that answers keeps it, so two
 * engines never take turns; one that is gone, or whose address now belongs to somebody else, keeps nobody waiting.
 */

/** Who says what of itself. */
export type Claim = {
  readonly endpoint: string;
  /** Null: an engine that does not tell. */
  readonly instanceUuid: string | null;
};

/** What answers at the holder's address. */
export type Answer = {
  readonly node: string | null;
  readonly endpoint: string | null;
  readonly instanceUuid: string | null;
};

/** The one whose registration was refused last. */
export type Contender = { readonly endpoint: string; readonly sinceMs: number };

/** The claim is the holder's own word, so nobody has to be asked. */
export function isHolder(holder: Claim, claim: Claim): boolean {
  const { instanceUuid } = holder;
  const sameInstance =
    instanceUuid === null || claim.instanceUuid === null || instanceUuid === claim.instanceUuid;
  return holder.endpoint === claim.endpoint && sameInstance;
}

/** Pure: may the claim have the name? `answer`: of the holder's address; null: nobody answers there. */
export function mayTakeName(input: {
  readonly id: string;
  readonly holder: Claim;
  readonly claim: Claim;
  readonly answer: Answer | null;
}): boolean {
  const { id, holder, claim, answer } = input;
  if (isHolder(holder, claim) || answer === null) return true;
  if (answer.node !== null && answer.node !== id) return true; // somebody else has the address now
  const told = answer.instanceUuid !== null && claim.instanceUuid !== null;
  if (told && answer.instanceUuid === claim.instanceUuid) return true; // the same process
  if (holder.endpoint === claim.endpoint) {
    // Two behind one address: who answers there is the one that is worked with.
    return !told || answer.instanceUuid !== holder.instanceUuid;
  }
  // One process that listens on its old and its new address, and does not tell its instance.
  return !told && answer.endpoint === claim.endpoint;
}
