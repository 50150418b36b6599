set -e
cd /
mkdir -p /run/bench
printf 'uid = 0\ngid = 0\nuse chroot = no\n[lxc]\npath = /var/lib/lxc\nread only = no\n[bench]\npath = /run/bench\nread only = no\n' > /run/rsyncd.conf
pgrep -x rsync >/dev/null || rsync --daemon --config=/run/rsyncd.conf
