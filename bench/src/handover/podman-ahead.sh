set -e
cd /
# A network namespace with the container's address, off the bridge, and the container's image.
name=$1 address=$2 program=$3
ip netns add $name
ip link add $name type veth peer name eth0 netns $name
ip -n $name link set lo up
ip -n $name link set eth0 address 02:88:00:00:00:${address##*.}
ip -n $name addr add $address/16 dev eth0
ip -n $name link set eth0 up
ip link set $name up
mkdir -p /run/bench/image /etc/criu
echo network-lock skip > /etc/criu/runc.conf
cd /run/bench/image
cp --dereference --parents $program $(ldd $program | grep -o '/[^ ]*') .
tar -c . | podman --storage-driver vfs import - rewriter >/dev/null 2>&1
