set -e
cd /
name=$1
PATH=/run/bench-criu:$PATH lxc-checkpoint -r -n $name -D /run/bench -o /run/bench.log -l ERROR >/dev/null 2>&1 ||
  { grep Error /run/bench/restore.log >&2; exit 1; }
pid=$(lxc-info -n $name -pH)
nsenter --net=/proc/$pid/ns/net arping -q -U -c 1 -I eth0 $(sed -n 's,lxc.net.0.ipv4.address = \(.*\)/.*,\1,p' /var/lib/lxc/$name/config)
