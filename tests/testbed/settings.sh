# Settings of the testbed; every script of it sources this file.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
KUBERNETES=v1.36.3 PAUSE=registry.k8s.io/pause:3.10.2 ETCD=registry.k8s.io/etcd:3.6.8-0 COREDNS=registry.k8s.io/coredns/coredns:v1.14.2
VIP=172.30.0.1 ENDPOINT=cp.testbed:6443
python=/usr/bin/python3
# Programs are slow to build and seldom change: they live outside the checkout, under a key of everything that decides what they are.
cache=${AUDIT_OPERATOR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/audit-operator}
key=$(cd "$here" && { echo "$KUBERNETES"; cat build programs/*/go.mod programs/*/go.sum; } | sha256sum | cut -c1-12)
bin=$cache/testbed/$key/bin
# What the nodes start from also depends on how it is put together.
template_key=$key-$(cd "$here" && cat template image.py systemctl nodeinit.py | sha256sum | cut -c1-12)
# What all clusters of this machine start from; disks, pids, network and cgroups are each cluster's own.
state=${AUDIT_OPERATOR_TESTBED:-${TMPDIR:-/tmp}/audit-operator-testbed}
cluster=${TESTBED_CLUSTER:-main}
run=$state/clusters/$cluster/run
nodes="cp1 cp2 cp3"

ip_of() { echo "172.30.0.1${1#cp}"; }                      # cp1 -> 172.30.0.11
disk_of() { echo "$state/clusters/$cluster/nodes/$1/rootfs"; }
# A test may have made a directory of logs immutable.
remove_disk() { chattr -f -i "$1"/var/log/kubernetes/* 2>/dev/null || true; rm -rf "$1"; }
cgroup_of() { echo "testbed-$cluster-$1"; }
say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }
fail() { echo "testbed: $*" >&2; exit 1; }
cannot() { echo "testbed: $*" >&2; exit 2; }
# step LABEL COMMAND…: runs it and tells how long it took.
step() {
  local label=$1 begin=$EPOCHREALTIME; shift
  "$@" || fail "$label: failed"
  printf '%8.1f s  %s\n' "$("$python" -c "print($EPOCHREALTIME - $begin)")" "$label" >&2
}
# wait_for SECONDS COMMAND…: until it succeeds.
wait_for() {
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || { say "waited in vain for: $*"; return 1; }; sleep 0.3; done
}
# A process is known by its pid and its start: a pid alone may have been given to somebody else.
started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
remember() { echo "$2 $(started "$2")" > "$run/$1.pid"; }  # remember NAME PID
pid_of() {
  local pid begin
  read -r pid begin 2>/dev/null < "$run/$1.pid" || return 1
  [ "$(started "$pid")" = "$begin" ] && echo "$pid"
}
alive() { pid_of "$1" >/dev/null; }
kill_and_wait() { local pid; pid=$(pid_of "$1") || return 0; kill -KILL "$pid"; while [ -d "/proc/$pid" ]; do sleep 0.05; done; }
in_node() { # in_node NODE COMMAND…
  local pid; pid=$(pid_of "$1") || fail "node $1 is not running"; shift
  nsenter -t "$pid" -m -u -i -n -p -- /usr/bin/env -i HOME=/root TERM=dumb KUBECONFIG=/etc/kubernetes/admin.conf \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin "$@"
}
# kubectl and helm are the machine's, with its files, and the network of cp1.
on_cp1() { # on_cp1 PROGRAM [ARG…]
  local config=$run/admin.conf new=$run/admin.conf.$$.$RANDOM pid
  pid=$(pid_of cp1) || fail "node cp1 is not running"
  (umask 077; sed "s|https://$ENDPOINT|https://$(ip_of cp1):6443|" "$(disk_of cp1)/etc/kubernetes/admin.conf" > "$new" && mv "$new" "$config") || fail "cp1 has no cluster yet"
  nsenter -t "$pid" -n -- env KUBECONFIG="$config" HELM_CACHE_HOME="$state/helm" HELM_CONFIG_HOME="$state/helm" HELM_DATA_HOME="$state/helm" "$bin/$1" "${@:2}"
}
kubectl() { on_cp1 kubectl "$@"; }
known() { case " $nodes " in *" ${1:-} "*) ;; *) cannot "there is no node ${1:-without a name}: one of $nodes" ;; esac; }
