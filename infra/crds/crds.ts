/** Custom resource definitions; their schemas come from the types that our programs parse with (#common/crd). */
import type { App } from "cdk8s";
import { diskPoolCrd } from "#common/crd/diskpool.ts";
import type { Install } from "../config.ts";
import { InstallChart } from "../constructs/kube.ts";

export class CrdsChart extends InstallChart {
  constructor(app: App, id: string, install: Install) {
    super(app, id, install);
    const { name, spec } = diskPoolCrd();
    this.add("CustomResourceDefinition", { name }, { spec });
  }
}
