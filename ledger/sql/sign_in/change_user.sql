-- Adds a user, sets another password, disables or enables a user, on record; returns whether
-- anything changed. A password is passed as the method, the salt and the SHA-256 of the key that is
-- derived from it. Each change ends the user's sessions without locking them: a session holds only
-- for the account as it was when the session began. Rights are granted to the credential
-- user:<name>. Needs the right admin in all projects. Locks: the database's list of the control
-- history.
CREATE OR REPLACE FUNCTION ledger.change_user(
  p_actor text, p_name text, p_change text, p_method text, p_salt bytea, p_key_sha256 bytea,
  p_issuer text, p_subject text, p_reason text
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  checked boolean;
  moment CONSTANT timestamptz := ledger.now();
BEGIN
  checked := ledger.check_access('*', '{admin}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_texts(ARRAY[p_reason], 2000);
  checked := ledger.check_texts(ARRAY[p_method], 60);
  checked := ledger.check_given('p_change', p_change IS NOT NULL);
  IF p_method !~ '^argon2id t=([1-9]|10) m=[1-9][0-9]{0,5} p=[1-4]$'
    OR substring(p_method FROM 'm=([0-9]+)')::int > 262144
  THEN
    RAISE EXCEPTION 'a key takes at most 10 passes, 262144 KiB and 4 lanes, as in "argon2id t=3 '
      'm=65536 p=1": %', p_method USING ERRCODE = '22023';
  END IF;
  IF p_change NOT IN ('add', 'password', 'disable', 'enable') OR p_name IS NULL
    OR p_name !~ '^[a-z0-9][a-z0-9._@-]{0,99}$'
    OR p_key_sha256 IS NOT NULL AND (octet_length(p_key_sha256) <> 32 OR p_method IS NULL
      OR coalesce(octet_length(p_salt), 0) NOT BETWEEN 16 AND 64)
    OR (p_key_sha256 IS NOT NULL)
      <> (p_change = 'password' OR p_change = 'add' AND p_subject IS NULL)
    OR (p_issuer IS NULL) <> (p_subject IS NULL)
  THEN
    RAISE EXCEPTION 'a user has a name of a-z, 0-9, ".", "_", "@" and "-", and a password or a '
      'subject of an issuer' USING ERRCODE = '22023';
  END IF;
  PERFORM ledger.lock_control('*');
  IF p_change = 'add' THEN
    checked := ledger.check_texts(ARRAY[p_issuer], 500);
    checked := ledger.check_texts(ARRAY[p_subject], 255);
    INSERT INTO ledger.user_account (name, issuer, subject, created_at, changed_at, actor, reason)
    VALUES (p_name, p_issuer, p_subject, moment, moment, p_actor, p_reason)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
      RETURN false;
    END IF;
    INSERT INTO ledger.credential_use (credential) VALUES ('user:' || p_name)
    ON CONFLICT DO NOTHING;
  ELSE
    UPDATE ledger.user_account AS account SET changed_at = moment, actor = p_actor,
      reason = p_reason, disabled_at = CASE p_change WHEN 'disable' THEN moment
        WHEN 'enable' THEN NULL ELSE account.disabled_at END
    WHERE account.name = p_name AND (p_change = 'password'
      OR (p_change = 'disable') = (account.disabled_at IS NULL));
    IF NOT FOUND THEN
      RETURN false;
    END IF;
    PERFORM ledger.note_use('user:' || p_name, NULL);
  END IF;
  IF p_key_sha256 IS NOT NULL THEN
    INSERT INTO ledger.user_password (name, method, salt, key_sha256)
    VALUES (p_name, p_method, p_salt, p_key_sha256)
    ON CONFLICT (name) DO UPDATE SET method = excluded.method, salt = excluded.salt,
      key_sha256 = excluded.key_sha256;
  END IF;
  RETURN true;
END $$;
