#!/bin/sh
# build.sh OUT [SOURCE...] builds the double, or a library of other sources, at
# OUT with the compiler CC. A warning is an error.
set -eu
dir=$(dirname "$0")
out=$1
shift
[ $# -gt 0 ] || set -- "$dir"/*.c
# CC may have arguments.
case $(${CC:-cc} -dumpmachine) in
*mingw*)
	exec $CC -std=gnu17 -Wall -Wextra -Werror -O1 -g -shared -static -pthread -D__USE_MINGW_ANSI_STDIO=1 \
		-include "$dir/windows_compat.h" -I"$dir/../../include" -o "$out" "$@"
	;;
esac
exec ${CC:-cc} -std=gnu17 -Wall -Wextra -Werror -O1 -g -shared -fPIC -pthread -fvisibility=hidden \
	-I"$dir/../../include" -o "$out" "$@"
