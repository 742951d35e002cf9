# shellcheck shell=bash disable=SC2034 # The scripts that source this file use what is set here.
# Settings and functions of the testbed. Every script of it sources this file.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

KUBERNETES=v1.36.3
PAUSE=registry.k8s.io/pause:3.10.2
ETCD=registry.k8s.io/etcd:3.6.8-0
COREDNS=registry.k8s.io/coredns/coredns:v1.14.2
VIP=172.30.0.1
ENDPOINT=cp.testbed:6443
nodes=(cp1 cp2 cp3)
python=/usr/bin/python3

# Programs are slow to build and seldom change: they are outside the checkout, under a key of everything that decides them.
cache=${AUDIT_OPERATOR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/audit-operator}
key=$(cd "$here" && { echo "$KUBERNETES" && cat build programs/*/go.mod programs/*/go.sum; } | sha256sum | cut -c1-12)
bin=$cache/testbed/$key/bin
# The template of the nodes also depends on how it is put together.
template_key=$key-$(cd "$here" && cat template image.py systemctl nodeinit.py | sha256sum | cut -c1-12)

# All clusters of this machine share the template. Each has disks, pids, a network and cgroups of its own.
state=${AUDIT_OPERATOR_TESTBED:-${TMPDIR:-/tmp}/audit-operator-testbed}
cluster=${TESTBED_CLUSTER:-main}
run=$state/clusters/$cluster/run

# cp1 -> 172.30.0.11
ip_of() {
  local node=$1
  echo "172.30.0.1${node#cp}"
}

disk_of() {
  local node=$1
  echo "$state/clusters/$cluster/nodes/$node/rootfs"
}

cgroup_of() {
  local node=$1
  echo "testbed-$cluster-$node"
}

known() {
  local node=${1:-}
  case " ${nodes[*]} " in
    *" $node "*) ;;
    *) cannot "there is no node ${node:-without a name}: one of ${nodes[*]}" ;;
  esac
}

remove_disk() {
  local disk=$1
  # A test may have made a directory of logs immutable.
  chattr -f -i "$disk"/var/log/kubernetes/* 2>/dev/null || true
  rm -rf "$disk"
}

say() {
  printf '%s %s\n' "$(date +%T)" "$*" >&2
}

fail() {
  echo "testbed: $*" >&2
  exit 1
}

cannot() {
  echo "testbed: $*" >&2
  exit 2
}

# step LABEL COMMAND…: runs it and reports how long it took.
step() {
  local label=$1 begin=$EPOCHREALTIME
  shift
  "$@" || fail "$label: failed"
  printf '%8.1f s  %s\n' "$("$python" -c "print($EPOCHREALTIME - $begin)")" "$label" >&2
}

# wait_for SECONDS COMMAND…: until it succeeds.
wait_for() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$end" ]; then
      say "waited in vain for: $*"
      return 1
    fi
    sleep 0.3
  done
}

# A process is known by its pid and its start: the kernel may give a pid to another process.
started() {
  local pid=$1
  sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null | cut -d' ' -f20
}

remember() {
  local name=$1 pid=$2
  echo "$pid $(started "$pid")" >"$run/$name.pid"
}

pid_of() {
  local name=$1 pid begin
  read -r pid begin 2>/dev/null <"$run/$name.pid" || return 1
  [ "$(started "$pid")" = "$begin" ] && echo "$pid"
}

alive() {
  local name=$1
  pid_of "$name" >/dev/null
}

kill_and_wait() {
  local name=$1 pid
  pid=$(pid_of "$name") || return 0
  kill -KILL "$pid"
  while [ -d "/proc/$pid" ]; do
    sleep 0.05
  done
}

# in_node NODE COMMAND…
in_node() {
  local node=$1 pid
  shift
  pid=$(pid_of "$node") || fail "node $node is not running"
  nsenter -t "$pid" -m -u -i -n -p -- \
    /usr/bin/env -i HOME=/root TERM=dumb KUBECONFIG=/etc/kubernetes/admin.conf \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin "$@"
}

# The kubeconfig of cp1's administrator, for the network of cp1. It appears under its name when it is whole.
admin_config() {
  local config=$1 new=$1.$$.$RANDOM
  (
    umask 077
    sed "s|https://$ENDPOINT|https://$(ip_of cp1):6443|" "$(disk_of cp1)/etc/kubernetes/admin.conf" >"$new" &&
      mv "$new" "$config"
  )
}

# on_cp1 PROGRAM [ARG…]: kubectl and helm are the machine's, with its files, in the network of cp1.
on_cp1() {
  local program=$1 config=$run/admin.conf pid
  shift
  pid=$(pid_of cp1) || fail "node cp1 is not running"
  admin_config "$config" || fail "cp1 has no cluster yet"
  nsenter -t "$pid" -n -- \
    env KUBECONFIG="$config" HELM_CACHE_HOME="$state/helm" HELM_CONFIG_HOME="$state/helm" HELM_DATA_HOME="$state/helm" \
    "$bin/$program" "$@"
}

kubectl() {
  on_cp1 kubectl "$@"
}
