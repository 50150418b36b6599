set -e
cd /
# A network namespace with the container's address, off the bridge.
name=$1 address=$2
ip netns add $name
ip link add $name type veth peer name eth0 netns $name
ip -n $name link set lo up
ip -n $name link set eth0 address 02:88:00:00:00:${address##*.}
ip -n $name addr add $address/16 dev eth0
ip -n $name link set eth0 up
ip link set $name up
mkdir -p /run/bench /etc/criu
# As CRIU unlocks a network: before its sockets come to life, and not after.
cat > /run/bench.unlock <<UNLOCK
#!/bin/sh
[ "\$CRTOOLS_SCRIPT_ACTION" = network-unlock ] && ip link set $name master br0
exit 0
UNLOCK
chmod 755 /run/bench.unlock
printf 'network-lock skip\naction-script /run/bench.unlock\n' > /etc/criu/runc.conf
