package client

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completionTimeout is the longest time that the daemon may take to answer when the user presses Tab.
const completionTimeout = 2 * time.Second

// bashFunctions define what cobra's script for bash needs of the package bash-completion, which not every system has.
//
//go:embed completion.bash
var bashFunctions string

func shells() []string { return []string{"bash", "zsh", "fish", "powershell"} }

func newCompletionCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "completion {bash|zsh|fish|powershell}", Short: "Print the script that completes arguments in a shell",
		Long: "Prints the script that completes verbs, flags, their values, and the names and ids of machines. It works in\n" +
			"bash 4.1 or later, zsh 5, fish 3.2 and PowerShell 5, and needs no other package.",
		Example: "  source <(osx-builder completion bash)\n  osx-builder completion zsh >\"${fpath[1]}/_osx-builder\"\n" +
			"  osx-builder completion fish >~/.config/fish/completions/osx-builder.fish\n  osx-builder completion powershell | Out-String | Invoke-Expression",
		ValidArgs: shells(),
		Args: func(_ *cobra.Command, args []string) error {
			if err := checkArgs(args, 1, 1, "the shell"); err != nil {
				return fmt.Errorf("%w: it must be one of %s", err, strings.Join(shells(), ", "))
			}
			if !slices.Contains(shells(), args[0]) {
				return fmt.Errorf("there is no script for %q%s", args[0], choices(args[0], shells(), "shell"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c.started = true
			root := cmd.Root()
			switch args[0] {
			case "zsh":
				return root.GenZshCompletion(c.stdout)
			case "fish":
				return root.GenFishCompletion(c.stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(c.stdout)
			default:
				return printBashCompletion(c, root)
			}
		},
	}
}

// printBashCompletion prints cobra's script with functions of its own instead of those of bash-completion.
func printBashCompletion(c *cli, root *cobra.Command) error {
	var script bytes.Buffer
	if err := root.GenBashCompletionV2(&script, true); err != nil {
		return err
	}
	text := strings.NewReplacer(
		"_get_comp_words_by_ref", "__osx-builder_words",
		"__ltrim_colon_completions", "__osx-builder_trim",
		"declare -F _init_completion", "false",
	).Replace(script.String())
	_, err := fmt.Fprint(c.stdout, text+"\n"+bashFunctions)
	return err
}

// completeFlag completes the values of a flag that exists.
func completeFlag(cmd *cobra.Command, name string, values ...string) {
	complete := cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveKeepOrder)
	if err := cmd.RegisterFlagCompletionFunc(name, complete); err != nil {
		panic(err) // there is no such flag
	}
}

// completeMachine completes the only argument.
func (c *cli) completeMachine(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completeMachines(cmd, args, prefix)
}

// completeMachines completes the names and the ids of machines that are not yet among the arguments. The descriptions
// are their states.
func (c *cli) completeMachines(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var list struct{ VMs []machine }
	c.fetchCompletions(cmd, "/vms", &list)
	var names, ids []string
	for _, m := range list.VMs {
		if slices.Contains(args, m.ID) || slices.Contains(args, m.Name) {
			continue
		}
		if m.Name != "" {
			names = append(names, cobra.CompletionWithDesc(m.Name, m.state()))
		}
		ids = append(ids, cobra.CompletionWithDesc(m.ID, strings.TrimSpace(m.state()+" "+m.Name)))
	}
	return append(names, ids...), cobra.ShellCompDirectiveNoFileComp
}

// completeImages completes the checksums of cached images. The descriptions are their URLs.
func (c *cli) completeImages(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var list struct{ Images []image }
	c.fetchCompletions(cmd, "/images", &list)
	var words []string
	for _, i := range list.Images {
		if !slices.Contains(args, i.Checksum) {
			words = append(words, cobra.CompletionWithDesc(i.Checksum, i.URL))
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// fetchCompletions reads the list at path. After an error the list stays empty: completion must not print errors.
func (s *settings) fetchCompletions(cmd *cobra.Command, path string, list any) {
	daemon, err := s.newClient()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	if b, err := daemon.get(ctx, path); err == nil {
		_ = json.Unmarshal(b, list)
	}
}
