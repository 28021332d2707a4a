-- Makes the login of the workers and reapers, which owns nothing: what it may do, its grant says.
-- Every start runs this file with psql; a login that is there stays as it is.
\getenv password RUNFOLD_APP_PASSWORD

SELECT 'CREATE ROLE runfold_worker NOLOGIN'
WHERE NOT EXISTS (SELECT FROM pg_roles AS role WHERE role.rolname = 'runfold_worker') \gexec

SELECT format(
  'CREATE ROLE app LOGIN CONNECTION LIMIT 50 PASSWORD %L IN ROLE runfold_worker', :'password')
WHERE NOT EXISTS (SELECT FROM pg_roles AS role WHERE role.rolname = 'app') \gexec
