#!/usr/bin/env bash
# Prometheus, promtool, Alertmanager and amtool from Debian's packages, unpacked into .headway/tools and not installed.
# For the tests of this folder; in production take them from wherever you take such things.
set -euo pipefail
folder="$(cd "$(dirname "$0")/../.." && pwd)/.headway/tools"
test -x "$folder/usr/bin/promtool" && exit 0
mkdir -p "$folder"
cd "$(mktemp -d)"
apt-get download -q prometheus prometheus-alertmanager 2>/dev/null ||
  { apt-get update -q && apt-get download -q prometheus prometheus-alertmanager; }
for package in *.deb; do dpkg -x "$package" "$folder"; done
# Debian's Alertmanager looks for its templates where an installation puts them. Here it is to look where it is started: a
# path of the same length, since it stands in the program.
LC_ALL=C sed -i "s#/usr/share/prometheus/alertmanager#./././././././././././././././././#g" "$folder/usr/bin/prometheus-alertmanager"
