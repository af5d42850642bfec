# The functions below replace those of the package bash-completion. Bash splits
# words at = and :, as in --host=http://localhost:12345; they are joined again.
__osx-builder_words()
{
    local i word
    words=() cword=0
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((i > 0)) && [[ ${COMP_WORDS[i]} == [=:]* || ${COMP_WORDS[i-1]} == *[=:] ]] && __osx-builder_joined "$i"; then
            words[${#words[@]}-1]+=$word
        else
            words+=("$word")
        fi
    done
    cword=$((${#words[@]} - 1))
    cur=${words[cword]}
    prev=
    if ((cword > 0)); then prev=${words[cword-1]}; fi
}

# __osx-builder_joined reports whether no blank precedes word $1 of the line.
__osx-builder_joined()
{
    local i line=$COMP_LINE
    for ((i = 0; i < $1; i++)); do
        line=${line#"${line%%[![:space:]]*}"}
        line=${line#"${COMP_WORDS[i]}"}
    done
    [[ $line == [![:space:]]* ]]
}

# __osx-builder_trim removes from the completions what precedes the last colon of
# the word, which bash leaves as it is.
__osx-builder_trim()
{
    if [[ $1 == *:* && $COMP_WORDBREAKS == *:* ]]; then
        local i prefix=${1%"${1##*:}"}
        for i in "${!COMPREPLY[@]}"; do
            COMPREPLY[i]=${COMPREPLY[i]#"$prefix"}
        done
    fi
}
