# The images of this repository: one target per program, named like the program.
#   docker buildx build --target agent-core --tag mayastor-agent-core:dev .
# hack/images/main.ts builds them all, also where there is no Docker.
#
# Final images have no shell and no package manager: Node, one bundle, and the libraries and programs it uses.
# Build secrets, all optional: npmrc and ca.pem (registry), apt.conf and sources.list (mirror). None is left in a layer.
ARG BASE=docker.io/library/debian:12-slim
ARG NODE_BASE=docker.io/library/node:24-bookworm-slim

# -- npm packages, exactly those of the lock file ------------------------------------------------------
FROM ${NODE_BASE} AS packages
WORKDIR /src
COPY package.json package-lock.json ./
RUN --mount=type=cache,target=/root/.npm,id=mayastor-npm --mount=type=secret,id=npmrc --mount=type=secret,id=ca.pem \
    NPM_CONFIG_USERCONFIG=/run/secrets/npmrc npm ci --ignore-scripts --no-audit --no-fund --loglevel=error \
    && cp "node_modules/node-linux-$(node -p process.arch)/bin/node" /usr/local/bin/node-pinned

# -- one file per program -------------------------------------------------------------------------------
FROM packages AS bundles
COPY agents agents
COPY engine/ts engine/ts
COPY hack/images/bundle.ts hack/images/programs.ts hack/images/
RUN node hack/images/bundle.ts /out

# -- the native engine ----------------------------------------------------------------------------------
FROM ${BASE} AS toolchain
COPY hack/images/apt_install.sh /usr/local/bin/
RUN --mount=type=secret,id=apt.conf --mount=type=secret,id=sources.list \
    apt_install.sh g++ cmake ninja-build ccache

FROM toolchain AS native
WORKDIR /src
COPY --from=packages /src/node_modules/node-api-headers node_modules/node-api-headers
COPY --from=packages /src/node_modules/node-addon-api node_modules/node-addon-api
COPY engine/native engine/native
# Objects of earlier builds are found in /ccache where the builder mounts one there. The compiler is known by its
# content: its date says nothing in layers whose times are set.
RUN export CCACHE_DIR=/ccache CCACHE_BASEDIR=/src CCACHE_NOHASHDIR=1 CCACHE_COMPILERCHECK=content \
    && cmake -S engine/native -B build/release -G Ninja -DCMAKE_BUILD_TYPE=Release -DMAYASTOR_ADDON=ON \
    && ninja -C build/release -j "$(nproc)" mayastor_addon \
    && strip --strip-debug --remove-section=.comment -o /mayastor.node build/release/mayastor.node \
    && rm -rf build

# -- what final images are made of ------------------------------------------------------------------------
FROM toolchain AS roots
COPY hack/images/collect.sh /usr/local/bin/
COPY --from=packages /usr/local/bin/node-pinned /usr/bin/node
COPY --from=packages /src/node_modules/node-linux-*/LICENSE /tmp/node-license
COPY LICENSE /tmp/license
RUN strip --strip-all /usr/bin/node && /usr/bin/node --version \
    && collect.sh /root-node /usr/bin/node \
    && mkdir -p /root-node/etc /root-node/usr/share/doc/node /root-node/usr/share/doc/mayastor \
    && install -d -m 1777 /root-node/tmp \
    && cp /tmp/node-license /root-node/usr/share/doc/node/copyright \
    && cp /tmp/license /root-node/usr/share/doc/mayastor/copyright \
    && printf 'root:x:0:0:root:/root:/sbin/nologin\nmayastor:x:65532:65532:mayastor:/tmp:/sbin/nologin\n' >/root-node/etc/passwd \
    && printf 'root:x:0:\nmayastor:x:65532:\n' >/root-node/etc/group \
    && printf 'passwd: files\ngroup: files\nhosts: files dns\n' >/root-node/etc/nsswitch.conf

FROM toolchain AS node-programs
RUN --mount=type=secret,id=apt.conf --mount=type=secret,id=sources.list \
    apt_install.sh e2fsprogs xfsprogs btrfs-progs mount util-linux
COPY hack/images/collect.sh /usr/local/bin/
# ext4, xfs and btrfs: made, checked, grown; mounted, named and frozen.
RUN collect.sh /root-programs mount umount blkid fsfreeze /etc/mke2fs.conf \
      mkfs.ext4 fsck.ext4 resize2fs mkfs.xfs xfs_growfs xfs_repair mkfs.btrfs btrfs

FROM scratch AS runtime
COPY --from=roots /root-node /
ENV PATH=/usr/sbin:/usr/bin NODE_ENV=production
WORKDIR /

# -- the control plane --------------------------------------------------------------------------------------
FROM runtime AS agent-core
# Its heap stays well below the pod's memory: lists of thousands of volumes leave much garbage, and answers wait outside of it.
ENV NODE_OPTIONS="--max-old-space-size=320 --max-semi-space-size=4"
COPY --from=bundles /out/agent-core /
USER 65532:65532
ENTRYPOINT ["agent-core"]

FROM runtime AS api-rest
# Its garbage is collected before the pod's memory is full: lists of thousands of volumes leave much of it.
ENV NODE_OPTIONS="--max-old-space-size=128 --max-semi-space-size=2"
COPY --from=bundles /out/api-rest /
USER 65532:65532
ENTRYPOINT ["api-rest"]

FROM runtime AS csi-controller
COPY --from=bundles /out/csi-controller /
USER 65532:65532
ENTRYPOINT ["csi-controller"]

FROM runtime AS operator-diskpool
COPY --from=bundles /out/operator-diskpool /
USER 65532:65532
ENTRYPOINT ["operator-diskpool"]

FROM runtime AS metrics-exporter-pool
COPY --from=bundles /out/metrics-exporter-pool /
USER 65532:65532
ENTRYPOINT ["metrics-exporter-pool"]

# -- on every node: root, because they mount and use devices --------------------------------------------
FROM runtime AS csi-node
COPY --from=node-programs /root-programs /
COPY --from=bundles /out/csi-node /
# Calls on a lost device hang for as long as the kernel retries: a few may not hold up every other volume.
ENV UV_THREADPOOL_SIZE=64
USER 0:0
ENTRYPOINT ["csi-node"]

FROM runtime AS io-engine
COPY --from=native /mayastor.node /opt/mayastor/lib/mayastor.node
COPY --from=bundles /out/io-engine /
# No I/O data enters JavaScript: the heap stays tiny.
ENV MAYASTOR_ADDON=/opt/mayastor/lib/mayastor.node NODE_OPTIONS="--max-old-space-size=96 --max-semi-space-size=2"
USER 0:0
ENTRYPOINT ["io-engine"]
