"""The kind of group that all commands hang in."""

import inspect

import click


class CommandGroup(click.Group):
    """A group whose help lists the commands in the order of the code, each with its whole summary."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order in which the commands were added."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes one row for each command. Click alone would cut a summary at the end of a line."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary(command)) for name, command in self.commands.items()])


def summary(command: click.Command) -> str:
    """The first paragraph of a command's help, on one line."""
    return inspect.cleandoc(command.help or "").partition("\n\n")[0].replace("\n", " ")
