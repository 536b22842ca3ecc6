#!/bin/sh
# Follows the stream at a URL with HTTPie. The file `cursor` holds the last id, so that the next run goes on from there,
# and `seconds` how long it waits before it connects again.
while true; do
    echo connecting >&2
    last=$(cat cursor 2>/dev/null)
    http --stream --body --ignore-stdin --timeout=60 GET "$1" Accept:text/event-stream ${last:+"Last-Event-ID:$last"} |
        while IFS= read -r line; do
            case $line in
                'event: '*) type=${line#event: } ;;
                'data: '*) data=${line#data: } ;;
                'id: '*) id=${line#id: } ;;
                'retry: '*) echo $((${line#retry: } / 1000)) >seconds ;;
                # The empty line: the frame is whole. One that was cut off never gets here.
                '')
                    printf '{"type":"%s","data":%s}\n' "${type:-message}" "$data"
                    [ -z "$id" ] || echo "$id" >cursor
                    [ "$type" != evertail.closed ] || exit 3
                    type='' data='' id=''
                    ;;
            esac
        done
    [ $? -ne 3 ] || exit 0
    sleep "$(cat seconds 2>/dev/null || echo 1)"
done
