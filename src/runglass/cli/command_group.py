"""The kind of group that all commands hang in."""

import inspect

import click


class CommandGroup(click.Group):
    """A group whose help lists the commands in the order of the code, each with its whole summary."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order in which the commands were added."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of the first argument, or an error that names the group which has it."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            for name, group in self.commands.items():
                if isinstance(group, click.Group) and args[0] in group.commands:
                    meant = f"{ctx.command_path} {name} {args[0]}"
                    message = f"No such command {args[0]!r}. Did you mean {meant!r}?"
                    raise click.UsageError(message, ctx) from error
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes one row for each command. Click alone would cut a summary at the end of a line."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary(command)) for name, command in self.commands.items()])


def summary(command: click.Command) -> str:
    """The first paragraph of a command's help, on one line."""
    return inspect.cleandoc(command.help or "").partition("\n\n")[0].replace("\n", " ")
