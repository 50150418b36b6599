set -e
cd /
name=$1 number=$2
config=/var/lib/lxc/$name/config
value() { sed -n "s/^$1 = //p" $config; }
cp $config /run/bench.config
ip netns add bench$number
ip link add bench$number type veth peer name eth0 netns bench$number
ip -n bench$number link set lo up
ip -n bench$number link set eth0 address $(value lxc.net.0.hwaddr)
ip -n bench$number addr add $(value lxc.net.0.ipv4.address) broadcast + dev eth0
ip -n bench$number link set eth0 up
ip link set bench$number up
rm -rf /run/bench; mkdir -p /run/bench
# As CRIU unlocks a network: before its sockets come to life, and not after.
cat > /run/bench.unlock <<UNLOCK
#!/bin/sh
[ "\$CRTOOLS_SCRIPT_ACTION" = network-unlock ] && ip link set bench$number master br0
exit 0
UNLOCK
chmod 755 /run/bench.unlock
printf 'inherit-fd fd[9]:extnet\nnetwork-lock skip\naction-script /run/bench.unlock\n' > /run/bench.conf
