set -e
cd /
name=$1 target=$2
ip link set $name nomaster
podman --storage-driver vfs --runtime runc --cgroup-manager cgroupfs container checkpoint \
  --tcp-established --compress none --export /run/bench/$name.tar $name >/dev/null
rsync -a --whole-file /run/bench/$name.tar rsync://$target/bench/
