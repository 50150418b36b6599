set -e
cd /
name=$1 number=$2
config=/var/lib/lxc/$name/config
group=/sys/fs/cgroup/lxc.payload.$name
interface=$(sed -n 's/^lxc.net.0.veth.pair = //p' $config)
for process in $(cat $group/cgroup.procs); do
  grep -q '^NSpid:.*\s1$' /proc/$process/status && pid=$process
done
network=$(stat -L -c %i /proc/$pid/ns/net)
sed -i '/^lxc.net.0.link/d; s/^\(lxc.net.0.veth.pair\) = .*/\1 = bench'"$number"/ $config
echo 1 > $group/cgroup.freeze
until grep -q 'frozen 1' $group/cgroup.events; do :; done
ip link set $interface nomaster
criu dump --tree $pid --images-dir /run/bench --log-file dump.log --tcp-established --file-locks \
  --link-remap --force-irmap --skip-in-flight --manage-cgroups=ignore --ext-mount-map auto \
  --enable-external-sharing --enable-external-masters --enable-fs hugetlbfs \
  --network-lock skip --external net[$network]:extnet --freeze-cgroup $group
while [ -e $group ]; do :; done
CRIU_CONFIG_FILE=/run/bench.conf lxc-checkpoint -r -n $name -D /run/bench \
  9</run/netns/bench$number >/dev/null 2>&1
