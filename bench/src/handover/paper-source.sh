set -e
cd /
name=$1 target=$2
mkdir -p /run/bench
PATH=/run/bench-criu:$PATH lxc-checkpoint -s -n $name -D /run/bench -o /run/bench.log -l ERROR >/dev/null ||
  { grep Error /run/bench/dump.log >&2; exit 1; }
rsync -a --whole-file /var/lib/lxc/$name rsync://$target/lxc/
rsync -a --whole-file /run/bench/ rsync://$target/bench/
