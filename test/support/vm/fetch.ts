/** Gets what the guest boots from into the cache, while there is a network: the tests' own has only loopback. */
import { prepareKernel } from "./kernel.ts";

console.log(`guest kernel ${prepareKernel().version}`);
