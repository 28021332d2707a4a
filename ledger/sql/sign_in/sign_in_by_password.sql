-- Begins a web session of a user for the key that is made from the password; returns user:<name>,
-- or null. A try is on record before it is answered, so that nobody who tries takes it back: the
-- first call with a key and a session's digest counts a wrong try and returns null; the second one,
-- in a later transaction, compares the key. After ten wrong tries in a row by one login of the
-- server a user has one try a minute by that login, and in between even the right password is
-- refused: no other login keeps the user out. A try that the clock dated in the future locks nobody
-- out. Needs no right: the password is the right. Locks the user's use by this login, SKIP LOCKED,
-- and nothing else: whoever tries holds up no change of the user. The first try by a login waits
-- for another first try by the same login.
CREATE OR REPLACE FUNCTION ledger.sign_in_by_password(p_name text, p_key bytea, p_sha256 bytea)
  RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  user_credential CONSTANT text := 'user:' || p_name;
  account record;
  moment CONSTANT timestamptz := ledger.now();
  -- Of a session's digest, which nobody else knows, so that no password is guessed by it.
  this_try CONSTANT bytea := sha256(p_key || coalesce(p_sha256, ''));
BEGIN
  -- In one query: an old password matches the account as it was before the change, and the session
  -- that it begins ends with the change.
  SELECT known.changed_at, known.disabled_at, password.key_sha256, use.login,
    use.try_sha256 = this_try AND use.try_txid IS DISTINCT FROM pg_current_xact_id_if_assigned()
      AS is_on_record,
    use.failed_uses >= 10
      AND use.last_failed_at BETWEEN moment - interval '1 minute' AND moment AS waits
  INTO account FROM ledger.user_account AS known
  LEFT JOIN ledger.user_password AS password ON password.name = known.name
  LEFT JOIN ledger.credential_use AS use ON use.credential = user_credential
    AND use.login = session_user
  WHERE known.name = p_name;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  IF account.is_on_record IS NOT TRUE THEN
    IF account.waits THEN
      RETURN NULL;
    END IF;
    IF account.login IS NULL THEN -- else it would wait for whoever changes the user
      INSERT INTO ledger.credential_use (credential, login) VALUES (user_credential, session_user)
      ON CONFLICT DO NOTHING;
    END IF;
    PERFORM ledger.note_use(user_credential, true, session_user, this_try);
    RETURN NULL;
  END IF;
  IF account.disabled_at IS NOT NULL OR (account.key_sha256 = sha256(p_key)) IS NOT TRUE THEN
    RETURN NULL;
  END IF;
  PERFORM ledger.note_use(user_credential, false, session_user);
  PERFORM ledger.begin_session(user_credential, p_sha256, account.changed_at);
  RETURN user_credential;
END $$;
