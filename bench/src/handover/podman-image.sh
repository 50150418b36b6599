set -e
# An image that holds a program, and the libraries that it needs.
program=$1
mkdir -p /run/bench-image
cd /run/bench-image
cp --dereference --parents $program $(ldd $program | grep -o '/[^ ]*') .
tar -c . | podman --storage-driver vfs import - rewriter >/dev/null 2>&1
podman --storage-driver vfs save --quiet --output /run/bench-image.tar rewriter
