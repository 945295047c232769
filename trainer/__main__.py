"""`python -m trainer`: the script `trainer`, where no script is installed."""

from trainer.cli import trainer_program

if __name__ == "__main__":
    trainer_program()
