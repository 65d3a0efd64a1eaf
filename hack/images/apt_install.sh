#!/bin/sh
# Installs Debian packages in a build stage, from the mirrors that the secrets of the build name if there are any.
# Usage: apt_install.sh PACKAGE...
# Invariant: neither lists nor packages nor the mirrors' names stay in the layer.
set -eu
if [ -e /run/secrets/apt.conf ]; then export APT_CONFIG=/run/secrets/apt.conf; fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "$@"
apt-get clean
rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/cache/ldconfig/aux-cache
