/**
 * The install values of Mayastor 2.2 as published, by name and default.
 * Why: every one of them must have its equivalent here; values_test.ts compares.
 */

/** A list too long to repeat; what it means is tested with the pods that use it. */
export const SOME_LIST = Symbol("some list");
/** One scrape job, which promtail.ts makes when the value is empty. */
export const ONE_JOB = Symbol("one scrape job");

export const DOCUMENTED_VALUES = {
  image: {
    registry: "docker.io",
    repo: "openebs",
    tag: "release-2.2",
    repoTags: {
      controlPlane: "",
      dataPlane: "",
      extensions: "",
    },
    pullPolicy: "Always",
  },
  nodeSelector: {
    "kubernetes.io/arch": "amd64",
  },
  priorityClassName: "",
  earlyEvictionTolerations: SOME_LIST,
  tolerations: [],
  base: {
    default_req_timeout: "5s",
    cache_poll_period: "30s",
    logSilenceLevel: null,
    initContainers: {
      enabled: true,
      containers: SOME_LIST,
    },
    initHaNodeContainers: {
      enabled: true,
      containers: SOME_LIST,
    },
    initCoreContainers: {
      enabled: true,
      containers: SOME_LIST,
    },
    imagePullSecrets: {
      enabled: false,
      secrets: [{ name: "login" }],
    },
    metrics: {
      enabled: true,
      pollingInterval: "5m",
    },
    jaeger: {
      enabled: false,
      initContainer: true,
      agent: {
        name: "jaeger-agent",
        port: 6831,
        initContainer: SOME_LIST,
      },
    },
    initRestContainer: {
      enabled: true,
      initContainer: SOME_LIST,
    },
  },
  operators: {
    pool: {
      logLevel: "info",
      resources: {
        limits: {
          cpu: "100m",
          memory: "32Mi",
        },
        requests: {
          cpu: "50m",
          memory: "16Mi",
        },
      },
      tolerations: [],
      priorityClassName: "",
    },
  },
  "jaeger-operator": {
    name: "{{ .Release.Name }}",
    crd: {
      install: false,
    },
    jaeger: {
      create: false,
    },
    rbac: {
      clusterRole: true,
    },
    tolerations: [],
    priorityClassName: "",
  },
  agents: {
    core: {
      logLevel: "info",
      capacity: {
        thin: {
          poolCommitment: "250%",
          volumeCommitment: "40%",
          volumeCommitmentInitial: "40%",
        },
      },
      resources: {
        limits: {
          cpu: "1000m",
          memory: "128Mi",
        },
        requests: {
          cpu: "500m",
          memory: "32Mi",
        },
      },
      partialRebuildWaitPeriod: "",
      tolerations: [],
      priorityClassName: "",
    },
    ha: {
      enabled: true,
      node: {
        logLevel: "info",
        resources: {
          limits: {
            cpu: "100m",
            memory: "64Mi",
          },
          requests: {
            cpu: "100m",
            memory: "64Mi",
          },
        },
        tolerations: [],
        priorityClassName: "",
      },
      cluster: {
        logLevel: "info",
        resources: {
          limits: {
            cpu: "100m",
            memory: "64Mi",
          },
          requests: {
            cpu: "100m",
            memory: "16Mi",
          },
        },
      },
    },
  },
  apis: {
    rest: {
      logLevel: "info",
      replicaCount: 1,
      resources: {
        limits: {
          cpu: "100m",
          memory: "64Mi",
        },
        requests: {
          cpu: "50m",
          memory: "32Mi",
        },
      },
      service: {
        type: "ClusterIP",
        nodePorts: {
          http: 30011,
          https: 30010,
        },
      },
      tolerations: [],
      priorityClassName: "",
    },
  },
  csi: {
    image: {
      registry: "registry.k8s.io",
      repo: "sig-storage",
      pullPolicy: "IfNotPresent",
      provisionerTag: "v2.2.1",
      attacherTag: "v3.2.1",
      registrarTag: "v2.1.0",
    },
    controller: {
      logLevel: "info",
      resources: {
        limits: {
          cpu: "32m",
          memory: "128Mi",
        },
        requests: {
          cpu: "16m",
          memory: "64Mi",
        },
      },
      tolerations: [],
      priorityClassName: "",
    },
    node: {
      logLevel: "info",
      topology: {
        segments: {
          "openebs.io/csi-node": "mayastor",
        },
        nodeSelector: false,
      },
      resources: {
        limits: {
          cpu: "100m",
          memory: "128Mi",
        },
        requests: {
          cpu: "100m",
          memory: "64Mi",
        },
      },
      nvme: {
        io_timeout: "30",
        ctrl_loss_tmo: "1980",
        keep_alive_tmo: "",
      },
      kubeletDir: "/var/lib/kubelet",
      pluginMounthPath: "/csi",
      socketPath: "csi.sock",
      tolerations: [],
      priorityClassName: "",
    },
  },
  io_engine: {
    logLevel: "info",
    api: "v1",
    target: {
      nvmf: {
        iface: "",
        ptpl: true,
      },
    },
    envcontext: "",
    reactorFreezeDetection: {
      enabled: false,
    },
    cpuCount: 2,
    coreList: [],
    nodeSelector: {
      "openebs.io/engine": "mayastor",
      "kubernetes.io/arch": "amd64",
    },
    resources: {
      limits: {
        cpu: "",
        memory: "1Gi",
        hugepages2Mi: "2Gi",
      },
      requests: {
        cpu: "",
        memory: "1Gi",
        hugepages2Mi: "2Gi",
      },
    },
    tolerations: [],
    priorityClassName: "",
  },
  etcd: {
    podLabels: {
      app: "etcd",
      "openebs.io/logging": "true",
    },
    replicaCount: 3,
    clusterDomain: "cluster.local",
    client: {
      secureTransport: false,
    },
    peer: {
      secureTransport: false,
    },
    persistence: {
      enabled: true,
      storageClass: "",
      size: "2Gi",
      reclaimPolicy: "Delete",
    },
    removeMemberOnContainerTermination: false,
    autoCompactionMode: "revision",
    autoCompactionRetention: 100,
    extraEnvVars: [{ name: "ETCD_QUOTA_BACKEND_BYTES", value: "8589934592" }],
    auth: {
      rbac: {
        create: false,
        enabled: false,
        allowNoneAuthentication: true,
      },
    },
    volumePermissions: {
      enabled: true,
    },
    debug: false,
    initialClusterState: "new",
    podAntiAffinityPreset: "hard",
    nodeSelector: {},
    service: {
      type: "ClusterIP",
      port: 2379,
      nodePorts: {
        clientPort: 31379,
        peerPort: "",
      },
    },
    tolerations: [],
    priorityClassName: "",
  },
  "loki-stack": {
    enabled: true,
    loki: {
      rbac: {
        create: true,
        pspEnabled: false,
      },
      enabled: true,
      persistence: {
        enabled: true,
        storageClassName: "",
        reclaimPolicy: "Delete",
        size: "10Gi",
      },
      securityContext: {
        fsGroup: 1001,
        runAsGroup: 1001,
        runAsNonRoot: false,
        runAsUser: 1001,
      },
      initContainers: SOME_LIST,
      config: {
        compactor: {
          compaction_interval: "20m",
          retention_enabled: true,
          retention_delete_delay: "1h",
          retention_delete_worker_count: 50,
        },
        limits_config: {
          retention_period: "168h",
        },
      },
      service: {
        type: "ClusterIP",
        port: 3100,
        nodePort: 31001,
      },
      tolerations: [],
      priorityClassName: "",
    },
    promtail: {
      rbac: {
        create: true,
        pspEnabled: false,
      },
      enabled: true,
      tolerations: [],
      priorityClassName: "",
      config: {
        lokiAddress: "http://{{ .Release.Name }}-loki:3100/loki/api/v1/push",
        snippets: {
          scrapeConfigs: ONE_JOB,
        },
      },
    },
  },
  obs: {
    callhome: {
      enabled: true,
      logLevel: "info",
      resources: {
        limits: {
          cpu: "100m",
          memory: "32Mi",
        },
        requests: {
          cpu: "50m",
          memory: "16Mi",
        },
      },
      tolerations: [],
      priorityClassName: "",
    },
  },
};
