/** Gets what the guests boot from into the cache, while there is a network: the tests' own has only loopback. */
import { fetchKernel, missingKernel } from "./kernel.ts";

for (const choice of ["oldest", "newest"] as const) {
  const kernel = fetchKernel(choice);
  console.log(
    kernel === null
      ? `SKIPPED: ${missingKernel(choice)}`
      : `${choice} guest kernel ${kernel.version}`,
  );
}
