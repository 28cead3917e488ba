# bash completion of corten(8)

_corten() {
    local cur=${COMP_WORDS[COMP_CWORD]} path='' position=0 option='' kind='' foreign='' words='' word i
    local root=() session=''
    # bash takes these as words of their own.
    local inside='^[=:]+$'
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        # What the shell would make of it, as far as quotes go.
        word=${COMP_WORDS[i]//[\"\'\\]/}
        word=${word/#\~/$HOME}
        if [[ $word =~ $inside ]]; then
            # Within the value of an option the next word still belongs to it, unless it is the value.
            [ -n "$kind" ] || ((++i))
        elif [ -n "$kind" ]; then
            [ "$option" != --root ] || root=(--root "$word")
            kind='' option=''
        elif [ -n "$foreign" ]; then
            continue
        elif [[ $word == -* ]]; then
            option=$word
            _corten_value "$path $word"
        else
            case "$path $word" in
    @descents
            *)
                _corten_position "$path $position"
                [ "$kind" != id ] || session=$word
                [ "$kind" != foreign ] || foreign=yes
                kind=''
                position=$((position + 1))
                ;;
            esac
        fi
    done
    [ "$cur" != = ] || [ -z "$kind" ] || cur=
    [[ ! $cur =~ $inside && i -eq COMP_CWORD ]] || return 0
    if [ -z "$kind" ] && [ -z "$foreign" ]; then
        if [[ $cur == -* ]]; then
            _corten_options "$path"
            COMPREPLY=($(compgen -W "$words" -- "$cur"))
            return
        fi
        _corten_position "$path $position"
    fi
    case $kind in
    id) words=$("${COMP_WORDS[0]/#\~/$HOME}" "${root[@]}" list --quiet 2>/dev/null) ;;
    session) words=$("${COMP_WORDS[0]/#\~/$HOME}" "${root[@]}" ps --sessions "$session" 2>/dev/null | sed '1d; s/ .*//') ;;
    signal)
        words='@signals'
        [[ $cur != SIG* ]] || words=SIG${words// / SIG}
        ;;
    capability) words='@capabilities' ;;
    words*) words=${kind#words } ;;
    directory)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -d -- "$cur")
        return
        ;;
    file)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}

# What the value of an option is: COMMAND OPTION.
_corten_value() {
    case $1 in
    @values
    esac
}

# What stands at a position: COMMAND NUMBER.
_corten_position() {
    case $1 in
    @positions
    esac
}

_corten_options() {
    case $1 in
    @options
    esac
}

complete -F _corten corten
