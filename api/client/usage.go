package client

import (
	"errors"
	"fmt"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// globalFlags lists the flags that can precede the verb, and whether each has a value.
func globalFlags() map[string]bool {
	return map[string]bool{"host": true, "token-file": true, "ca-cert": true, "quiet": false, "q": false, "json": false}
}

// HasVerb reports whether a program's arguments are those of the command line: a verb, which flags of the command line
// may precede, or only such flags. The daemon's arguments are only flags, of which it shares -token-file with the
// command line.
func HasVerb(args []string) bool {
	ofClient := false
	for len(args) > 0 {
		name, isFlag := flagName(args[0])
		if !isFlag {
			return true
		}
		hasValue, known := globalFlags()[name]
		if !known {
			return false
		}
		ofClient = ofClient || name != "token-file"
		if hasValue && !strings.Contains(args[0], "=") && len(args) > 1 {
			args = args[1:]
		}
		args = args[1:]
	}
	return ofClient
}

// flagName returns the name of a flag without hyphens and value.
func flagName(arg string) (name string, isFlag bool) {
	if len(arg) < 2 || arg[0] != '-' {
		return "", false
	}
	name, _, _ = strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
	return name, true
}

// longFlags writes the flags that precede the verb with two hyphens, since the daemon's flags have one.
func longFlags(args []string) []string {
	long := append([]string(nil), args...)
	for i := 0; i < len(long); i++ {
		name, isFlag := flagName(long[i])
		hasValue, known := globalFlags()[name]
		if !isFlag || !known {
			break
		}
		if len(name) > 1 && !strings.HasPrefix(long[i], "--") {
			long[i] = "-" + long[i]
		}
		if hasValue && !strings.Contains(long[i], "=") {
			i++
		}
	}
	return long
}

// unknownVerb is the error for arguments that do not begin with a verb.
func unknownVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("a verb is missing, such as create or list")
	}
	var names []string
	for _, verb := range cmd.Commands() {
		if verb.IsAvailableCommand() {
			names = append(names, append(verb.Aliases, verb.Name())...)
		}
	}
	return fmt.Errorf("there is no verb %q%s", args[0], suggestion(args[0], names))
}

// suggestion returns ", did you mean …?" if one of the words is similar to what the user wrote.
func suggestion(word string, known []string) string {
	best, distance := "", min(3, (len(word)+2)/2)
	for _, k := range known {
		if d := levenshtein.Distance(word, k, nil); d < distance || d == distance && k < best {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// choices returns a suggestion, or otherwise "; the …s are …" with all words.
func choices(word string, known []string, noun string) string {
	if s := suggestion(word, known); s != "" {
		return s
	}
	return fmt.Sprintf("; the %ss are %s", noun, strings.Join(known, ", "))
}

// flagError explains an error of package pflag.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var noValue *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		return fmt.Errorf("there is no flag -%s", unknown.GetSpecifiedName())
	case errors.As(err, &unknown):
		name := "--" + unknown.GetSpecifiedName()
		return fmt.Errorf("there is no flag %s%s", name, suggestion(name, names))
	case errors.As(err, &noValue):
		return fmt.Errorf("--%s needs a value: %s", noValue.GetFlag().Name, noValue.GetFlag().Usage)
	case errors.As(err, &invalid):
		return fmt.Errorf("--%s %q: it must be %s", invalid.GetFlag().Name, invalid.GetValue(), wanted(invalid.GetFlag().Value))
	}
	return err
}

// wanted describes the values of a flag.
func wanted(v pflag.Value) string {
	switch v.Type() {
	case "int":
		return "a whole number"
	case "bool":
		return "true or false"
	case "intSlice":
		return "whole numbers, separated by commas"
	case durationType:
		return `a number of seconds, or a duration such as "90s" or "1h30m"`
	default:
		return v.Type()
	}
}

// noArgs, oneArg and someArgs check the number of a verb's arguments. what names an argument, as in "a machine's id".
func noArgs(_ *cobra.Command, args []string) error { return checkArgs(args, 0, 0, "") }

func oneArg(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error { return checkArgs(args, 1, 1, what) }
}

func someArgs(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error { return checkArgs(args, 1, len(args), what) }
}

func checkArgs(args []string, least, most int, what string) error {
	if len(args) < least {
		return fmt.Errorf("%s is missing", what)
	}
	if len(args) > most {
		return fmt.Errorf("%q is one argument too many", args[most])
	}
	return nil
}

const machineArg = "the machine's id or name"

// helpWidth is the number of columns for the help.
const helpWidth = 80

// wrapHelp breaks the paragraphs of the verbs' help into lines.
func wrapHelp(cmd *cobra.Command) {
	paragraphs := strings.Split(cmd.Long, "\n\n")
	for i, p := range paragraphs {
		paragraphs[i] = strings.Join(wrap(strings.ReplaceAll(p, "\n", " "), helpWidth, ""), "\n")
	}
	cmd.Long = strings.Join(paragraphs, "\n\n")
	for _, sub := range cmd.Commands() {
		wrapHelp(sub)
	}
}

// newHelpCommand returns the verb help. Unlike cobra's, it fails if there is no such verb.
func newHelpCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "help [VERB]", Short: "Explain a verb",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var words []string
			if len(args) == 0 {
				for _, verb := range cmd.Root().Commands() {
					if verb.IsAvailableCommand() {
						words = append(words, cobra.CompletionWithDesc(verb.Name(), verb.Short))
					}
				}
			}
			return words, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			verb, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return unknownVerb(cmd.Root(), append(rest, args...))
			}
			c.started = true
			return verb.Help()
		},
	}
}
