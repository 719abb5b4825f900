# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_pmx_init_global_optspecs
    string join \n c= run-dir= h/help V/version
end

function __fish_pmx_init_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_pmx_init_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_pmx_init_using_subcommand
    set -l cmd (__fish_pmx_init_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c pmx-init -n "__fish_pmx_init_needs_command" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-init -n "__fish_pmx_init_needs_command" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-init -n "__fish_pmx_init_needs_command" -s h -l help -d 'Print help'
complete -c pmx-init -n "__fish_pmx_init_needs_command" -s V -l version -d 'Print version'
complete -c pmx-init -n "__fish_pmx_init_needs_command" -f -a "start" -d 'Prepares run_dir, then starts milters as the configured user'
complete -c pmx-init -n "__fish_pmx_init_needs_command" -f -a "stop" -d 'Stops milters and returns when they are gone'
complete -c pmx-init -n "__fish_pmx_init_needs_command" -f -a "restart" -d 'Checks everything, then restarts milters'
complete -c pmx-init -n "__fish_pmx_init_needs_command" -f -a "reload" -d 'Checks everything, then restarts milters'
complete -c pmx-init -n "__fish_pmx_init_needs_command" -f -a "try-restart" -d 'Restarts milters that run, starts none'
complete -c pmx-init -n "__fish_pmx_init_needs_command" -f -a "force-reload" -d 'Restarts milters that run, starts none'
complete -c pmx-init -n "__fish_pmx_init_needs_command" -f -a "status" -d 'Shows milters at once, without asking them'
complete -c pmx-init -n "__fish_pmx_init_needs_command" -f -a "help" -d 'Shows the manual page'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand start" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-init -n "__fish_pmx_init_using_subcommand start" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-init -n "__fish_pmx_init_using_subcommand start" -s h -l help -d 'Print help'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand start" -s V -l version -d 'Print version'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand stop" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-init -n "__fish_pmx_init_using_subcommand stop" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-init -n "__fish_pmx_init_using_subcommand stop" -s h -l help -d 'Print help'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand stop" -s V -l version -d 'Print version'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand restart" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-init -n "__fish_pmx_init_using_subcommand restart" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-init -n "__fish_pmx_init_using_subcommand restart" -s h -l help -d 'Print help'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand restart" -s V -l version -d 'Print version'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand reload" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-init -n "__fish_pmx_init_using_subcommand reload" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-init -n "__fish_pmx_init_using_subcommand reload" -s h -l help -d 'Print help'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand reload" -s V -l version -d 'Print version'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand try-restart" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-init -n "__fish_pmx_init_using_subcommand try-restart" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-init -n "__fish_pmx_init_using_subcommand try-restart" -s h -l help -d 'Print help'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand try-restart" -s V -l version -d 'Print version'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand force-reload" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-init -n "__fish_pmx_init_using_subcommand force-reload" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-init -n "__fish_pmx_init_using_subcommand force-reload" -s h -l help -d 'Print help'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand force-reload" -s V -l version -d 'Print version'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand status" -l format -d 'text (default), json, openmetrics, prometheus, nagios' -r -f -a "text\t''
json\t''
openmetrics\t''
prometheus\t''
nagios\t''"
complete -c pmx-init -n "__fish_pmx_init_using_subcommand status" -l watch -d 'Again and again, until Ctrl-C' -r
complete -c pmx-init -n "__fish_pmx_init_using_subcommand status" -s w -l warning -d 'With nagios: WARNING outside of [METRIC=]RANGE' -r
complete -c pmx-init -n "__fish_pmx_init_using_subcommand status" -l critical -d 'With nagios: CRITICAL outside of [METRIC=]RANGE' -r
complete -c pmx-init -n "__fish_pmx_init_using_subcommand status" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-init -n "__fish_pmx_init_using_subcommand status" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-init -n "__fish_pmx_init_using_subcommand status" -l long -d 'Work in hand, times, losses, deaths; JSON has them'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand status" -l history -d 'The last ten minutes and the last events'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand status" -l per-slot -d 'Each slot too, with openmetrics and prometheus'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand status" -l names -d 'Only the names of all milters, for scripts'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand status" -s h -l help -d 'Print help'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand status" -s V -l version -d 'Print version'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand help" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-init -n "__fish_pmx_init_using_subcommand help" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-init -n "__fish_pmx_init_using_subcommand help" -s h -l help -d 'Print help'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand help" -s V -l version -d 'Print version'

# Names of milters, as the program knows them.
function __fish_pmx_init_names
    set -l tokens (commandline -opc)
    set -l given
    set -l verb
    set -l i 2
    while test $i -le (count $tokens)
        set -l word $tokens[$i]
        switch $word
            case -c --run-dir
                set i (math $i + 1)
                # After status it is a threshold.
                test "$word$verb" = -cstatus
                or set -a given $word (string replace -r '^~' $HOME -- $tokens[$i])
            case '--run-dir=*'
                set -a given (string replace -r '=~' =$HOME -- $word)
            case '-*'
            case '*'
                test -n "$verb"
                or set verb $word
        end
        set i (math $i + 1)
    end
    $tokens[1] $given status --names 2>/dev/null
end

complete -c pmx-init -n "__fish_pmx_init_using_subcommand start stop restart reload try-restart force-reload status" -f -a "(__fish_pmx_init_names)"
complete -c pmx-init -n "__fish_pmx_init_using_subcommand stop" -f -a "-HUP" -d 'connections in progress finish'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand stop" -f -a "-INT" -d 'connections are aborted'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand stop" -f -a "-KILL" -d 'master and children are gone at once'
complete -c pmx-init -n "__fish_pmx_init_using_subcommand stop" -f -a "-TERM" -d 'connections in progress finish'
