# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_pmx_milter_global_optspecs
    string join \n c= run-dir= h/help V/version
end

function __fish_pmx_milter_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_pmx_milter_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_pmx_milter_using_subcommand
    set -l cmd (__fish_pmx_milter_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c pmx-milter -n "__fish_pmx_milter_needs_command" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_needs_command" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_needs_command" -s h -l help -d 'Print help'
complete -c pmx-milter -n "__fish_pmx_milter_needs_command" -s V -l version -d 'Print version'
complete -c pmx-milter -n "__fish_pmx_milter_needs_command" -f -a "start" -d 'Starts milters and returns when they serve'
complete -c pmx-milter -n "__fish_pmx_milter_needs_command" -f -a "stop" -d 'Stops milters and returns when they are gone'
complete -c pmx-milter -n "__fish_pmx_milter_needs_command" -f -a "restart" -d 'Checks everything, then restarts milters'
complete -c pmx-milter -n "__fish_pmx_milter_needs_command" -f -a "reload" -d 'Checks everything, then restarts milters'
complete -c pmx-milter -n "__fish_pmx_milter_needs_command" -f -a "status" -d 'Shows milters at once, without asking them'
complete -c pmx-milter -n "__fish_pmx_milter_needs_command" -f -a "top" -d 'Shows one milter live in the terminal: slots, rates, latencies'
complete -c pmx-milter -n "__fish_pmx_milter_needs_command" -f -a "exporter" -d 'Serves the numbers to Prometheus, and health to probes, over HTTP'
complete -c pmx-milter -n "__fish_pmx_milter_needs_command" -f -a "check" -d 'Checks configuration and policies; every problem in one run'
complete -c pmx-milter -n "__fish_pmx_milter_needs_command" -f -a "try" -d 'Runs a policy over message files, without an MTA'
complete -c pmx-milter -n "__fish_pmx_milter_needs_command" -f -a "run" -d 'Runs one milter in the foreground, for systemd'
complete -c pmx-milter -n "__fish_pmx_milter_needs_command" -f -a "demo" -d 'Shows a throw-away milter at work, then its status'
complete -c pmx-milter -n "__fish_pmx_milter_needs_command" -f -a "help" -d 'Shows the manual page'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand start" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand start" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand start" -s h -l help -d 'Print help'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand start" -s V -l version -d 'Print version'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand stop" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand stop" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand stop" -s h -l help -d 'Print help'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand stop" -s V -l version -d 'Print version'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand restart" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand restart" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand restart" -s h -l help -d 'Print help'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand restart" -s V -l version -d 'Print version'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand reload" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand reload" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand reload" -s h -l help -d 'Print help'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand reload" -s V -l version -d 'Print version'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand status" -l format -d 'text (default), json, openmetrics, prometheus, nagios' -r -f -a "text\t''
json\t''
openmetrics\t''
prometheus\t''
nagios\t''"
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand status" -l watch -d 'Again and again, until Ctrl-C' -r
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand status" -s w -l warning -d 'With nagios: WARNING outside of [METRIC=]RANGE' -r
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand status" -l critical -d 'With nagios: CRITICAL outside of [METRIC=]RANGE' -r
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand status" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand status" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand status" -l long -d 'Work in hand, times, losses, deaths; JSON has them'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand status" -l history -d 'The last ten minutes and the last events'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand status" -l per-slot -d 'Each slot too, with openmetrics and prometheus'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand status" -l names -d 'Only the names of all milters, for scripts'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand status" -s h -l help -d 'Print help'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand status" -s V -l version -d 'Print version'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand top" -l interval -d 'Between two looks' -r
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand top" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand top" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand top" -l once -d 'Prints one picture as plain text, of the size that COLUMNS and LINES tell'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand top" -s h -l help -d 'Print help'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand top" -s V -l version -d 'Print version'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand exporter" -l listen -d 'Numeric address and port; a port alone is on 127.0.0.1' -r
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand exporter" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand exporter" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand exporter" -l per-slot -d 'Each slot too'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand exporter" -s h -l help -d 'Print help'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand exporter" -s V -l version -d 'Print version'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand check" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand check" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand check" -l dump -d 'Prints the effective configuration, defaults filled in, as TOML'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand check" -s h -l help -d 'Print help'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand check" -s V -l version -d 'Print version'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand try" -l sender -d 'Envelope sender; otherwise the address in From:' -r
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand try" -l recipient -d 'Envelope recipient, as often as needed; otherwise the addresses in To:' -r
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand try" -l helo -d 'Name that the SMTP client gives in HELO' -r
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand try" -l client -d 'Address of the SMTP client' -r
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand try" -l host -d 'Host name of the SMTP client' -r
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand try" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand try" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand try" -s h -l help -d 'Print help'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand try" -s V -l version -d 'Print version'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand run" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand run" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand run" -s h -l help -d 'Print help'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand run" -s V -l version -d 'Print version'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand demo" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand demo" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand demo" -s h -l help -d 'Print help'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand demo" -s V -l version -d 'Print version'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand help" -s c -d 'Instead of $PMX_CONF and of /etc/pmx/pmx.conf' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand help" -l run-dir -d 'Instead of the configuration\'s run_dir' -r -F
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand help" -s h -l help -d 'Print help'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand help" -s V -l version -d 'Print version'

# Names of milters, as the program knows them.
function __fish_pmx_milter_names
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

complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand start stop restart reload status top run" -f -a "(__fish_pmx_milter_names)"
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand stop" -f -a "-HUP" -d 'connections in progress finish'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand stop" -f -a "-INT" -d 'connections are aborted'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand stop" -f -a "-KILL" -d 'master and children are gone at once'
complete -c pmx-milter -n "__fish_pmx_milter_using_subcommand stop" -f -a "-TERM" -d 'connections in progress finish'
