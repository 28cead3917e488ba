#compdef corten
# zsh completion of corten(8)

_corten_list() {
    local -a root
    [[ -z $corten_root ]] || root=(--root ${(Q)~corten_root})
    _call_program corten ${(q)corten_program} ${(q)root} $*
}

_corten_id() {
    local -a ids
    ids=(${(f)"$(_corten_list list --quiet)"})
    _wanted ids expl ID compadd -a ids
}

_corten_session() {
    local -a sessions
    sessions=(${${${(f)"$(_corten_list ps --sessions ${(q)${words[2,CURRENT-2]:#-*}[1]})"}[2,-1]}%% *})
    _wanted sessions expl session compadd -a sessions
}

_corten_signal() {
    local -a names
    names=(@signals)
    [[ $PREFIX != SIG* ]] || names=(SIG$^names)
    _wanted signals expl signal compadd -a names
}

_corten_capability() {
    _wanted capabilities expl capability compadd @capabilities
}

_corten() {
    local curcontext=$curcontext state corten_program=$words[1] corten_root ret=1
    local -a line commands below
    typeset -A opt_args
    commands=(
        @commands
    )
    _arguments -C -s @globals \
            '1:command:->command' '*::argument:->arguments' && ret=0
    corten_root=$opt_args[--root]
    case $state in
    command) _describe -t commands command commands && ret=0 ;;
    arguments) _corten_command "$line[1]" ;;
    esac
    return ret
}

# The rest of the words, from the command on.
_corten_command() {
    below=()
    case $1 in
    @nested
    esac
    if (( $#below )); then
        if (( CURRENT == 2 )); then
            _describe -t commands command below && ret=0
            return
        fi
        1="$1 $words[2]"
        shift words
        (( CURRENT-- ))
    fi
    case $1 in
    @cases
    esac
}

_corten "$@"
