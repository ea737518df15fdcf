#!/usr/bin/env bash
# start_agent_servers.sh [N]: starts N agent servers (default 10) at the ports from 8080 on, until Ctrl-C.
# More words go to `shopfloor agent-servers`, e.g. --command 'my-server --port {port}'.
exec shopfloor agent-servers "${1:-10}" "${@:2}"
