"""What a transaction sees and changes of the vault: people, credentials, secrets. None of it is ever in an event."""

from typing import NamedTuple, Protocol

from keelson.access.tokens import hash_token
from keelson.log.decision import CredentialKind, CredentialRow, Person, SecretRow


class Sealer(Protocol):
    """Encrypts the values of secrets, so that the vault holds nothing that opens without this service's keys."""

    def seal(self, secret_id: str, version: int, values: dict[str, str]) -> tuple[str, bytes]:
        """Give the name of the key that was used, and the values sealed under it, for this secret and version alone."""

    def open(self, secret_id: str, version: int, key_id: str, sealed: bytes) -> dict[str, str]:
        """Give the values. Raises if they were sealed as another secret's or version, or by a key that is not known."""

    def digest(self, secret_id: str, values: dict[str, str]) -> str:
        """Give the keyed digest of a secret's values: equal for equal ones, of no use for guessing without the key."""


class SealedSecret(NamedTuple):
    """A version of a secret as the vault keeps it."""

    key_id: str
    sealed: bytes


class VaultReader(Protocol):
    """Reads the vault as it is now."""

    async def find_person(self, email: str) -> str | None:
        """Give the person who has an e-mail, in whichever case."""

    async def read_secret(self, secret_id: str, version: int) -> SealedSecret | None:
        """Give a version of a secret, unless it was erased or never was."""


class Vault:
    """The vault as one transaction's changes leave it; they are written with its events, or not at all."""

    def __init__(self, reader: VaultReader, sealer: Sealer) -> None:
        self._reader = reader
        self._sealer = sealer
        self._people: dict[str, Person] = {}
        self._credentials: dict[str, CredentialRow] = {}
        self._sealed: dict[tuple[str, int], SealedSecret] = {}
        self._erased: set[str] = set()
        # Whom e-mails named in the vault itself, for the read set.
        self.looked_up: dict[str, str | None] = {}

    @property
    def people(self) -> list[Person]:
        """The rows of people that change."""
        return list(self._people.values())

    @property
    def credentials(self) -> list[CredentialRow]:
        """The credentials that are issued or removed."""
        return list(self._credentials.values())

    @property
    def secrets(self) -> list[SecretRow]:
        """The secrets that are erased, and the versions that are sealed."""
        erased = [SecretRow(secret_id, None, None, None) for secret_id in sorted(self._erased)]
        return erased + [SecretRow(*place, *sealed) for place, sealed in self._sealed.items()]

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._people or self._credentials or self._sealed or self._erased)

    async def find_person(self, email: str) -> str | None:
        """Give the person who has an e-mail, in whichever case."""
        wanted = email.lower()
        for person in self._people.values():
            if person.email is not None and person.email.lower() == wanted:
                return person.person_id
        if email not in self.looked_up:
            self.looked_up[email] = await self._reader.find_person(email)
        found = self.looked_up[email]
        # Who is among the changes has another e-mail by now, or none.
        return None if found in self._people else found

    def keep_person(self, person_id: str, email: str, name: str | None) -> None:
        """Keep a person's e-mail and name, in place of those that were kept before."""
        self._people[person_id] = Person(person_id, email, name)

    def erase_person(self, person_id: str) -> None:
        """Erase a person's e-mail and name."""
        self._people[person_id] = Person(person_id, None, None)

    def issue_credential(
        self, credential_id: str, token: str, kind: CredentialKind, holder_id: str, actor_id: str
    ) -> None:
        """Keep the hash of a token."""
        self._credentials[credential_id] = CredentialRow(credential_id, hash_token(token), kind, holder_id, actor_id)

    def revoke_credential(self, credential_id: str) -> None:
        """Remove the hash of a token."""
        self._credentials[credential_id] = CredentialRow(credential_id, None, None, None, None)

    async def open_secret(self, secret_id: str, version: int) -> dict[str, str] | None:
        """Give the values of a version; None if it was erased or never was."""
        sealed = self._sealed.get((secret_id, version))
        if sealed is None and secret_id not in self._erased:
            sealed = await self._reader.read_secret(secret_id, version)
        return None if sealed is None else self._sealer.open(secret_id, version, *sealed)

    def seal_secret(self, secret_id: str, version: int, values: dict[str, str]) -> str:
        """Seal the values as a new version; give their keyed digest."""
        self._sealed[secret_id, version] = SealedSecret(*self._sealer.seal(secret_id, version, values))
        return self._sealer.digest(secret_id, values)

    def erase_secret(self, secret_id: str) -> None:
        """Erase all versions of a secret."""
        self._erased.add(secret_id)
        self._sealed = {place: sealed for place, sealed in self._sealed.items() if place[0] != secret_id}
