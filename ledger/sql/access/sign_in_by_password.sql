-- Begins a web session of a user for the key that is made from the password; returns user:<name>,
-- or null. After ten wrong tries in a row a user has one try a minute, and in between even the
-- right password is refused. A try of the future, when the clock was ahead, keeps nobody out. Needs
-- no right: the password is the right.
CREATE OR REPLACE FUNCTION ledger.sign_in_by_password(p_name text, p_key bytea, p_sha256 bytea)
  RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  account ledger.user_account;
  wanted bytea;
  moment CONSTANT timestamptz := ledger.now();
BEGIN
  SELECT * INTO account FROM ledger.user_account AS u WHERE u.name = p_name FOR UPDATE;
  -- After the lock: a change of the password that it waited for counts.
  SELECT w.key_sha256 INTO wanted FROM ledger.user_password AS w WHERE w.name = account.name;
  IF account.name IS NULL OR account.failed_tries >= 10
    AND account.last_failed_at BETWEEN moment - interval '1 minute' AND moment THEN
    RETURN NULL;
  END IF;
  IF account.disabled_at IS NOT NULL OR wanted IS NULL OR p_key IS NULL
    OR wanted <> sha256(p_key) THEN
    UPDATE ledger.user_account AS u
    SET failed_tries = least(u.failed_tries + 1, 1000000), last_failed_at = moment
    WHERE u.name = account.name;
    RETURN NULL;
  END IF;
  UPDATE ledger.user_account AS u SET failed_tries = 0, last_used_at = moment
  WHERE u.name = account.name;
  PERFORM ledger.begin_session('user:' || account.name, p_sha256);
  RETURN 'user:' || account.name;
END $$;
