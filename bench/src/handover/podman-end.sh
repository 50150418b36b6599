set -e
cd /
name=$1
podman --storage-driver vfs --runtime runc --cgroup-manager cgroupfs rm --force --time 0 --ignore $name >/dev/null 2>&1
ip link del $name
ip netns del $name
rm -rf /run/bench
