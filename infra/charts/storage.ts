/** What users see of the installation: storage classes and the DiskPools declared in the values. */
import type { App } from "cdk8s";
import { DRIVER_NAME } from "#common/csi/driver.ts";
import type { Install } from "../config.ts";
import { InstallChart } from "../constructs/kube.ts";
import type { StorageClassValues } from "../values.ts";

const DEFAULT_CLASS = { "storageclass.kubernetes.io/is-default-class": "true" };

/** Parameters are text, by their published names; only what was given is written. */
export function storageClassParameters(values: StorageClassValues): Record<string, string> {
  const { repl = 1, ioTimeout, nvmeCtrlLossTmo, nvmeKeepAliveTmo, nvmeNrIoQueues } = values;
  const { fsType, thin, stsAffinityGroup } = values;
  const given = {
    protocol: "nvmf",
    repl,
    ioTimeout,
    nvmeCtrlLossTmo,
    nvmeKeepAliveTmo,
    nvmeNrIoQueues,
    fsType,
    thin,
    stsAffinityGroup,
  };
  return Object.fromEntries(
    Object.entries(given).flatMap(([key, value]) =>
      value === undefined ? [] : [[key, String(value)]],
    ),
  );
}

export class StorageClassesChart extends InstallChart {
  constructor(app: App, id: string, install: Install) {
    super(app, id, install);
    const { storageClass, storageClasses } = install.values;
    if (storageClass.enabled) {
      this.addClass(this.named(storageClass.nameSuffix), {
        parameters: storageClass.parameters,
        isDefault: storageClass.default,
      });
    }
    for (const entry of storageClasses) {
      const { name, reclaimPolicy, volumeBindingMode } = entry;
      this.addClass(name, {
        parameters: storageClassParameters(entry),
        isDefault: entry.default ?? false,
        ...(reclaimPolicy === undefined ? {} : { reclaimPolicy }),
        ...(volumeBindingMode === undefined ? {} : { volumeBindingMode }),
      });
    }
  }

  private addClass(
    name: string,
    {
      parameters,
      isDefault,
      ...policies
    }: {
      parameters: Readonly<Record<string, string>>;
      isDefault: boolean;
      reclaimPolicy?: string;
      volumeBindingMode?: string;
    },
  ): void {
    const annotations = isDefault ? { annotations: DEFAULT_CLASS } : {};
    this.add(
      "StorageClass",
      { name, ...annotations },
      { provisioner: DRIVER_NAME, parameters, ...policies },
    );
  }
}

export class DiskPoolsChart extends InstallChart {
  constructor(app: App, id: string, install: Install) {
    super(app, id, install);
    for (const { name, node, disks, labels } of install.values.diskPools) {
      const topology = labels === undefined ? {} : { topology: { labelled: labels } };
      this.add("DiskPool", { name }, { spec: { node, disks, ...topology } });
    }
  }
}
