# fish completion of corten(8)

# The command so far, the number of its arguments, and the values that matter: PATH, POSITION, ROOT, ID on a line each.
function __corten_words
    set -l path ''
    set -l position 0
    set -l root ''
    set -l id ''
    set -l wants ''
    set -l option ''
    for word in (commandline -opc)[2..-1]
        if test -n "$wants"
            test "$option" = --root; and set root $word
            set wants ''
            continue
        end
        if string match -q -- '-*' $word
            if string match -q -- '--root=*' $word
                set root (string replace -- '--root=' '' $word)
                continue
            end
            set option $word
            switch "$path $word"
        @valued
            end
            continue
        end
        if test -z "$path"; and contains -- " $word" @commands
            set path $word
        else if contains -- "$path $word" @nested
            set path "$path $word"
        else
            test $position = 0; and set id $word
            set position (math $position + 1)
        end
    end
    printf '%s\n' $path $position $root $id
end

function __corten_in
    set -l words (__corten_words)
    test "$words[1]" = "$argv[1]"
end

function __corten_at
    set -l words (__corten_words)
    test "$words[1]" = "$argv[1]"; and begin
        test (count $argv) = 1; or test "$words[2]" = "$argv[2]"
    end
end

function __corten_list
    set -l words (__corten_words)
    set -l root
    test -n "$words[3]"; and set root --root $words[3]
    set -l program (commandline -opc)[1]
    command $program $root $argv 2>/dev/null
end

function __corten_id
    __corten_list list --quiet
end

function __corten_session
    set -l words (__corten_words)
    __corten_list ps --sessions $words[4] | string replace -r ' .*' '' | tail -n +2
end

function __corten_signal
    set -l names @signals
    string match -q 'SIG*' (commandline -ct); and set names SIG$names
    printf '%s\n' $names
end

function __corten_capability
    printf '%s\n' @capabilities
end

complete -c corten -f
@lines
