#!/bin/sh
# An SSH server for the one user of the image, without root. Whoever has a key of AUTHORIZED_KEYS gets in, nobody else.
# Its own key is made once, in the volume of keys, so that clients know the container again.
set -eu

host_key="${SSH_KEYS:=/keys/ssh}/host_ed25519"
mkdir -p "$SSH_KEYS"
test -f "$host_key" || ssh-keygen -q -t ed25519 -N "" -f "$host_key"

# A session begins with an empty environment: what arms its kernels, and says where they save, is handed on.
environment="PATH=$PATH"
for name in IPYRESCUE_KEY_FILE IPYRESCUE_AUTOSTART IPYRESCUE_STORE; do
  value=$(printenv "$name" || true)
  test -z "$value" || environment="$environment \"$name=$value\""
done

exec /usr/sbin/sshd -D -e -f /dev/null -p 2222 -h "$host_key" \
  -o PidFile=none -o UsePAM=no -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no \
  -o "AuthorizedKeysFile=${AUTHORIZED_KEYS:=/run/ssh/authorized_keys}" -o "Subsystem=sftp internal-sftp" \
  -o "SetEnv=$environment"
