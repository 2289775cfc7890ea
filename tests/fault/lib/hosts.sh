# shellcheck shell=bash
# shellcheck disable=SC2016,SC2034 # commands for another shell; `command` and `reason` are read by who calls
# Sourced by tests of broken links and slow ones: two hosts on this machine, joined by a cable that can be pulled and
# limited. The first is this machine in a network of its own, the second has its own name and shared memory too. A network
# lives as long as the process that holds it; both end with the shell that called start_hosts.
#
# Needs root, ip (iproute2), unshare, nsenter and setpriv (util-linux), and Open MPI, whose launcher takes any command
# in the place of ssh.

start_hosts() { # 1: it cannot be done here, and $reason says why
  local word
  reason=''
  [ "$(id -u)" -eq 0 ] || reason='not root'
  for word in ip unshare nsenter setpriv; do command -v $word >/dev/null || reason="no $word"; done
  [ -n "$MPIRUN_FLAGS" ] || reason='the launcher is not that of Open MPI'
  [ -z "$reason" ] || return 1
  hosts=()
  hold_host here --net && hold_host elsewhere --net --uts --mount && join_hosts >hosts.log 2>&1 && return
  reason="no networks of one's own: $(tail -n 1 hosts.log)"
  end_hosts
  return 1
}

hold_host() { # name, unshare's flags
  local end=$((SECONDS + 60))
  rm -f "host.$1"
  setpriv --pdeathsig KILL unshare "${@:2}" sh -c '
    ip link set lo up &&
      { [ "$1" = here ] || { hostname "$1" && mount -t tmpfs none /dev/shm; }; } &&
      : >"host.$1" && exec sleep infinity' sh "$1" >hosts.log 2>&1 &
  hosts+=($!)
  until [ -e "host.$1" ]; do
    kill -0 "${hosts[-1]}" 2>/dev/null || return 1
    [ $SECONDS -lt $end ] || fail "host $1 is not there"
    sleep 0.05
  done
}

join_hosts() {
  on_host 0 ip link add cable type veth peer name cable netns "${hosts[1]}" || return
  local host
  for host in 0 1; do
    on_host $host ip address add "10.0.0.$((host + 1))/24" dev cable &&
      on_host $host ip link set cable up || return
  done
  plug_cable
  cat >agent <<AGENT
#!/bin/sh
shift
exec nsenter --target ${hosts[1]} --net --uts --mount -- sh -c "\$*"
AGENT
  cat >rank <<'RANK'
#!/bin/sh
"$@"
echo $? >"status.$OMPI_COMM_WORLD_RANK"
RANK
  chmod +x agent rank
}

on_host() { nsenter --target "${hosts[$1]}" --net -- "${@:2}"; }
limit_cable() { # 1gbit, or none
  local host
  for host in 0 1; do
    on_host $host tc qdisc del dev cable root 2>/dev/null
    [ "$1" = none ] || on_host $host tc qdisc add dev cable root tbf rate "$1" burst 256kb latency 50ms || return
  done
}
pull_cable() { on_host 0 ip link set cable down; }
plug_cable() { # and until the hosts find each other again
  local end=$((SECONDS + 60))
  on_host 0 ip link set cable up
  until reaches 0 && reaches 1; do
    [ $SECONDS -lt $end ] || fail 'the mended cable carries nothing'
    sleep 0.05
  done
}
reaches() { # from host; where nobody listens the other one says so
  on_host "$1" timeout 1 bash -c ": >/dev/tcp/10.0.0.$((2 - $1))/1" 2>&1 | grep -q refused
}

# spread_over_hosts R PROGRAM...: sets `command`: R ranks, the even ones here, the odd ones elsewhere. Each leaves its
# exit status in status.RANK.
spread_over_hosts() {
  rm -f status.*
  # shellcheck disable=SC2206 # flags are words
  command=(nsenter --target "${hosts[0]}" --net -- "$MPIRUN" $MPIRUN_FLAGS --map-by node
    --mca plm_rsh_agent "$PWD/agent" --host "10.0.0.1:4,10.0.0.2:4" -n "$1" "$PWD/rank" "${@:2}")
}

end_hosts() {
  [ ${#hosts[@]} -gt 0 ] || return 0
  kill -KILL "${hosts[@]}"
  wait "${hosts[@]}" 2>/dev/null
  hosts=()
}
